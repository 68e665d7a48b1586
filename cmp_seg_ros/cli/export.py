"""`cmp-seg export`."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmp_seg_ros.bundle import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from cmp_seg_ros.bundle import Bundle
    from cmp_seg_ros.engine.exported import Runtime


def export(
    bundle: Annotated[str, typer.Argument(help="A folder, or a name in models/.")] = DEFAULT_BUNDLE,
    engine: Annotated[
        str, typer.Option(help="cpu, openvino, onnxruntime, onnxruntime-cuda, tensorrt, or auto for the node's own.")
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(help="int8, bf16, fp16 or fp32, where the engine has it; by default the fastest that passes."),
    ] = "",
    build_only: Annotated[
        bool, typer.Option("--build-only", help="Build, but do not run: for container images.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json and the ONNX graph.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Build an engine for this machine into the cache, and check it against the reference on sample scans.

    An engine that answers otherwise is not taken; the next higher precision is built and checked instead.
    """
    from rich.console import Console

    from cmp_seg_ros.bundle import Bundle

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if out is not None:
        from cmp_seg_ros.outputs import require_writable

        require_writable(out, "export")
    with console.status("") as status, _told(console, status):
        model = Bundle.find(bundle)
        report = _export(model, engine, precision, build_only, lambda what: status.update(what))
    if out is not None:
        _write(out, model, report)
    if as_json:
        typer.echo(json.dumps(report))
        return
    for refused in report["refused"]:
        console.print(f"[bold yellow]{report['engine']}-{refused['precision']} was not taken[/]: its answers differ")
    made = f"built in {report['seconds']:.1f} s" if report["built"] else "found in the cache"
    console.print(f"{report['engine']}-{report['precision']} of {model.description.name} {made}", markup=False)
    if report["file"]:
        console.print(f"{report['file']}, {report['bytes'] / 1e6:.1f} MB", markup=False)
    console.print(report["told"], markup=False)


def _export(
    bundle: "Bundle", name: str, precision: str, build_only: bool, tell: Callable[[str], None]
) -> dict[str, Any]:
    """What was built and how it answers. Raises UserError."""
    from time import monotonic

    from cmp_seg_ros.engine import cache, parity
    from cmp_seg_ros.engine.base import runtime_of

    runtime, named = runtime_of(name, precision)
    build, built = runtime.build, False

    def noted(bundle: "Bundle", precision: str) -> bytes:
        nonlocal built
        built = True  # and not by another process that this one waited for
        assert build is not None
        return build(bundle, precision)

    if build is not None:
        runtime = replace(runtime, build=noted)
    known = list(runtime.precisions)
    if named and named not in known:
        runtime.keep(bundle, named)  # says what there is
    exact = parity.Exact.best(bundle)
    refused: list[dict[str, Any]] = []
    for candidate in known[known.index(named) :] if named else known:
        start, built, compiled = monotonic(), False, _compiled(runtime)
        tell(f"building {runtime.name}-{candidate}")
        size = len(runtime.keep(bundle, candidate))
        if not size:  # our own engine, whose kernels are compiled when it is first made
            runtime.engine(bundle, candidate)
        report: dict[str, Any] = {
            "command": "export",
            "bundle": bundle.description.name,
            "hash": bundle.hash,
            "engine": runtime.name,
            "precision": candidate,
            "version": runtime.version,
            "hardware": runtime.hardware,
            "file": str(cache.path_of(runtime.key(bundle, candidate))) if size else None,
            "bytes": size,
            "built": built or _compiled(runtime) > compiled,
            "seconds": monotonic() - start,
            "refused": refused,
            "agreement": None,
            "told": "not checked, as asked",
        }
        if build_only:
            return report
        tell(f"checking {runtime.name}-{candidate} against {exact.name}")
        found = runtime.check(bundle, runtime.engine(bundle, candidate), exact)
        if runtime.takes(found, candidate):
            return report | {"agreement": asdict(found), "told": str(found)}
        refused.append({"precision": candidate, "agreement": asdict(found)})
    raise runtime.no_precision_left()


def _compiled(runtime: "Runtime") -> set[str]:
    """The compiled kernels that it keeps."""
    return set() if runtime.compiled is None else {str(path) for path in runtime.compiled.rglob("*.nbc")}


def _write(out: Path, bundle: "Bundle", report: dict[str, Any]) -> None:
    from cmp_seg_ros.engine.exported import serialised_graph
    from cmp_seg_ros.outputs import write_report, writing

    with writing(out):
        write_report(out, report)
        if report["file"]:  # built of the graph
            (out / f"{bundle.description.name}-{report['precision']}.onnx").write_bytes(
                serialised_graph(bundle, report["precision"])
            )


@contextmanager
def _told(console: "Console", status: "Status") -> Iterator[None]:
    """What the engines log: progress into the status line, warnings above it."""

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING and not hasattr(record, "progress"):
                console.print(f"warning: {record.getMessage()}", markup=False)
            else:
                status.update(record.getMessage())

    logger, handler = logging.getLogger("cmp_seg_ros"), Told(logging.INFO)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
