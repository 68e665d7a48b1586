"""`cmp-seg export`."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmp_seg_ros.bundle import DEFAULT_BUNDLE
from cmp_seg_ros.cli import options

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from cmp_seg_ros.engine.loading import Loader


def export(
    bundle: Annotated[str, typer.Argument(help="A folder, or a name in models/.")] = DEFAULT_BUNDLE,
    engine: Annotated[
        str, typer.Option(help="For instance openvino, or with a precision openvino-bf16; auto is the node's default.")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="int8, bf16, fp16 or fp32, where the engine has it; by default the fastest that passes.")
    ] = "",
    build_only: Annotated[
        bool, typer.Option("--build-only", help="Build, but do not run: for container images.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json and the ONNX graph.")] = None,
    as_json: options.Json = False,
) -> None:
    """Build an engine for this machine into the cache, and check it against the reference on sample scans.

    Where a precision gives other labels, the next higher one is built and checked instead.
    """
    from rich.console import Console

    from cmp_seg_ros.bundle import Bundle
    from cmp_seg_ros.engine import registry
    from cmp_seg_ros.engine.loading import Loader
    from cmp_seg_ros.errors import UserError
    from cmp_seg_ros.outputs import require_writable, write_report, writing

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if out is not None:
        require_writable(out, "export")
    with console.status("") as status, _logged(console, status):
        model = Bundle.find(bundle)
        runtime, named = registry.find(engine)
        if named and precision not in ("", named):
            raise UserError(f"engine '{engine}' names another precision than {precision}; name one")
        loader = Loader(model, runtime)
        report = _export(loader, named or precision, build_only, status.update)
    if out is not None:
        with writing(out):
            write_report(out, report)
            if report["file"]:  # built of the graph
                graph = loader.network.graph(report["precision"])
                (out / f"{report['bundle']}-{report['precision']}.onnx").write_bytes(graph)
    if as_json:
        typer.echo(json.dumps(report))
        return
    for refused in report["refused"]:
        console.print(f"[bold yellow]{report['engine']}-{refused['precision']} is not used[/]: it gives other labels")
    made = f"built in {report['seconds']:.1f} s" if report["built"] else "found in the cache"
    console.print(f"{report['engine']}-{report['precision']} of {model.description.name} {made}", markup=False)
    if report["file"]:
        console.print(f"{report['file']}, {report['bytes'] / 1e6:.1f} MB", markup=False)
    console.print(report["text"], markup=False)


def _export(loader: "Loader", named: str, build_only: bool, progress: Callable[[str], None]) -> dict[str, Any]:
    """What was built and how it answers. Raises UserError."""
    from time import monotonic

    from cmp_seg_ros.engine import cache
    from cmp_seg_ros.engine.loading import exact_engine

    bundle, runtime, known = loader.bundle, loader.runtime, loader.precisions
    exact = exact_engine(bundle, pytorch=True)
    refused: list[dict[str, Any]] = []
    for candidate in known[known.index(named) :] if named in known else [named] if named else known:
        start, compiled = monotonic(), _compiled(loader)
        progress(f"building {runtime.name}-{candidate}")
        kept = loader.keep(candidate)  # says which precisions there are, where there is no such one
        if not runtime.builds:  # but compiles kernels when it is first made
            loader.engine(candidate)
        report: dict[str, Any] = {
            "command": "export",
            "bundle": bundle.description.name,
            "hash": bundle.hash,
            "engine": runtime.name,
            "precision": candidate,
            "version": runtime.version(),
            "hardware": runtime.hardware(),
            "file": str(cache.path_of(loader.key(candidate))) if runtime.builds else None,
            "bytes": len(kept.content),
            "built": kept.built or _compiled(loader) > compiled,
            "seconds": monotonic() - start,
            "refused": refused,
            "agreement": None,
            "text": "not checked, as asked",
        }
        if build_only:
            return report
        progress(f"checking {runtime.name}-{candidate} against {exact.name}")
        found = loader.check(loader.engine(candidate), exact)
        if loader.accepts(found, candidate):
            return report | {"agreement": asdict(found), "text": loader.text(found)}
        refused.append({"precision": candidate, "agreement": asdict(found)})
    raise loader.no_precision_left()


def _compiled(loader: "Loader") -> set[str]:
    """The compiled kernels that are kept."""
    folder = loader.runtime.compiled
    return set() if folder is None else {str(path) for path in folder.rglob("*.nbc")}


@contextmanager
def _logged(console: "Console", status: "Status") -> Iterator[None]:
    """Shows what the engines log: progress in the status line, warnings above it."""

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING and not hasattr(record, "progress"):
                console.print(f"warning: {record.getMessage()}", markup=False)
            else:
                status.update(record.getMessage())

    logger, handler = logging.getLogger("cmp_seg_ros"), Shown(logging.INFO)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
