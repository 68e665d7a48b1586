"""The runtimes that there are: each file in `runtimes/` lists its own as RUNTIMES, best first."""

from importlib import import_module
from pkgutil import iter_modules

from cmp_seg_ros.engine import runtimes
from cmp_seg_ros.engine.base import Runtime
from cmp_seg_ros.errors import UserError

DEFAULT = "cpu"  # what `auto` stands for: the fastest on every machine that was measured


def files() -> list[str]:
    """Names of the files, which engines' names begin with."""
    return [info.name for info in iter_modules(runtimes.__path__)]


def find_all(engine: str) -> tuple[list[Runtime], str]:
    """The runtimes that share an engine's name, best first, and the precision at its end, where it has one.

    `onnxruntime-fp32` is a name of several, `onnxruntime-cpu-fp32` of one. Raises UserError for an unknown name,
    ImportError where the file needs what is not installed.
    """
    file, _, rest = engine.partition("-")
    file = DEFAULT if file == "auto" else file
    if file not in files():
        raise UserError(f"no engine '{engine}'; known: auto, {', '.join(files())}")
    known: tuple[Runtime, ...] = import_module(f"{runtimes.__name__}.{file}").RUNTIMES
    for runtime in known:
        if f"{file}-{rest}-".startswith(f"{runtime.name}-"):
            return [runtime], f"{file}-{rest}"[len(runtime.name) :].strip("-")
    return list(known), rest


def find(engine: str) -> tuple[Runtime, str]:
    """As `find_all`, the first that can run here."""
    known, precision = find_all(engine)
    return next((runtime for runtime in known if not runtime.missing()), known[0]), precision
