"""Which files of the package import which."""

import ast
import graphlib
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "cmp_seg_ros"
PARTS = ("engine", "waffleiron", "kernels", "speed", "bundle", "label_space", "segmenter", "doctor", "rate_keeper")


def test_no_files_import_each_other_in_a_circle() -> None:
    """From the bundle to the engines; imports inside functions and for types count, too."""
    files = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    files = {name: path for name, path in files.items() if name.split(".")[1] in PARTS}
    imports: dict[str, set[str]] = {}
    for name, path in files.items():
        froms = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        named = {f"{node.module}.{alias.name}" for node in froms for alias in node.names}
        imports[name] = (named | {str(node.module) for node in froms}) & files.keys()
    assert imports["cmp_seg_ros.segmenter"] >= {"cmp_seg_ros.bundle", "cmp_seg_ros.engine.loading"}
    list(graphlib.TopologicalSorter(imports).static_order())  # raises CycleError
