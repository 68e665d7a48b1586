"""`cmp-seg convert`."""

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from cmp_seg_ros import interrupts
from cmp_seg_ros.cli import options


class Runner(str, Enum):
    """Where the work is done."""

    local = "local"
    ray = "ray"


def convert(
    inputs: Annotated[
        list[Path], typer.Argument(help="Bags, folders of scans with pictures, or converted sets, which are merged.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for shards/, index.jsonl and report.json.")],
    topic: options.Topic = "",
    columns: options.Columns = "",
    calibration: options.Calibration = None,
    lidar: options.Lidar = "",
    no_images: Annotated[bool, typer.Option("--no-images", help="Convert the scans alone.")] = False,
    processes: Annotated[
        int | None, typer.Option(help="Number of processes; by default one per core.", min=1)
    ] = None,
    runner: Annotated[Runner, typer.Option(help="local, or ray: a Ray cluster ($RAY_ADDRESS).")] = Runner.local,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Pair scans with their nearest images and write them as one set for training. Resumes; merges its inputs.

    Exits with status 1 if an input was left out since it cannot be opened.
    """
    from cmp_seg_ros.cli.progress import progress_bar
    from cmp_seg_ros.cli.tables import counted, print_warnings, show
    from cmp_seg_ros.datasets import conversion
    from cmp_seg_ros.errors import UserError

    sources = conversion.sources_of(inputs, topic, calibration, lidar, columns, not no_images)
    work = conversion.Conversion(sources, out, leave_out=True)
    print_warnings(f"left out: {why}" for why in work.left_out)
    with interrupts.explained(interrupts.resumes(out)), progress_bar("scans", work.total) as progress:
        for done in work.run(processes, runner.value):
            progress(done)
    report = work.finish()
    converted = f"{counted(report['scans'], 'scan')} of {counted(len(report['sequences']), 'sequence')}"
    if as_json:
        print(json.dumps(report))
    else:
        print_warnings([*report["problems"], *report["notes"]])
        images = "".join(f"{name}: {_paired(one)}\n" for name, one in report["images"].items())
        splits = ", ".join(f"{name} {count:,}" for name, count in report["splits"].items())
        show(f"{converted}, {report['bytes'] / 1e6:,.0f} MB, in {report['seconds']:.1f} s\n{splits}\n{images}{out}")
    if work.left_out:
        raise UserError(
            f"{converted} converted, but: {'; '.join(work.left_out)}. Repair these, convert them elsewhere, and "
            "merge: cmp-seg convert SET SET --out MERGED"
        )


def _paired(images: dict[str, float]) -> str:
    gap = "no stamps"
    if "gap_max" in images:
        gap = f"{1e3 * images['gap_p50']:.1f} ms from their scans (median; at most {1e3 * images['gap_max']:.1f} ms)"
    return f"{images['paired']:,} images, {gap}"
