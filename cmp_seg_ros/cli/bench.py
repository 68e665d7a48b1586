"""`cmp-seg bench`."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmp_seg_ros.cli import options
from cmp_seg_ros.cli.tables import print_warnings, table_of, wide_console
from cmp_seg_ros.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

WIDE = 130  # characters, where the table goes to a file
QUICK_WIDTHS, QUICK_VOXELS, QUICK_LIMIT = (128, 256), (2000, 5000, 16000), 8.0


def bench(
    engines: Annotated[
        str, typer.Option(help="Engines, separated by commas, such as cpu,openvino-bf16; by default all there are.")
    ] = "",
    widths: Annotated[str, typer.Option(help="Widths of the network; by default 128,256,768.")] = "",
    voxels: Annotated[str, typer.Option(help="Voxels of the scans; by default 2000,5000,8000,16000,32000,64000.")] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer widths and sizes, fewer turns: some five minutes.")
    ] = False,
    time_limit: Annotated[
        float | None,
        typer.Option(
            help="Seconds for one width and size of scan; what would take longer is left out. By default 60.", min=1.0
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json and bench.png.")] = None,
    as_json: options.Json = False,
) -> None:
    """Measure every engine against the plain PyTorch network and against the bare matrix products, in turns.

    Networks are 24 layers deep; a width without a bundle in models/ gets random weights. Scans are simulated.
    """
    from rich.console import Console

    from cmp_seg_ros.outputs import require_writable, write_report, writing
    from cmp_seg_ros.speed.bench import TIME_LIMIT, VOXELS, WIDTHS, Bench

    if out is not None:
        require_writable(out, "bench")
    with Console(stderr=True).status("") as status:
        report = Bench(
            engines=[name.strip() for name in engines.split(",") if name.strip()],
            widths=numbers(widths, "--widths") or (QUICK_WIDTHS if quick else WIDTHS),
            voxels=numbers(voxels, "--voxels") or (QUICK_VOXELS if quick else VOXELS),
            time_limit=time_limit or (QUICK_LIMIT if quick else TIME_LIMIT),
            processes=QUICK_WIDTHS[:1] if quick else None,
            progress=status.update,
            warn=lambda warning: print_warnings([warning]),
        ).run()
    if out is not None:
        from cmp_seg_ros.speed.plot import plot

        with writing(out):
            write_report(out, report)
            plot(report, out / "bench.png")
    if as_json:
        print(json.dumps(report))
    else:
        console = wide_console(WIDE)
        for part in (network_table(report), stage_table(report), process_table(report), *remarks(report)):
            console.print(part)
    if report["machine"].get("interrupted"):
        raise typer.Exit(130)


def numbers(text: str, option: str) -> list[int]:
    """Whole numbers above 0, separated by commas. Raises UserError."""
    try:
        found = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = [0]
    if any(number <= 0 for number in found):
        raise UserError(f"{option} needs whole numbers above 0, separated by commas, not '{text}'")
    return found


def network_table(report: dict[str, Any]) -> "Table":
    """Networks against bare products and the plain network."""
    columns = ["median", "quartiles", "bare\nproducts", "ratio"]
    columns += ["plain\nnetwork", "times\nfaster", "labels as\nreference"]
    found = _table(["width", "voxels", "engine"], columns, "The network, milliseconds")
    before = None
    for row in report["rows"]:
        case = row["width"], row["voxels"]
        new, before = case != before, case
        if new:
            found.add_section()
        matmul, dense = row["matmul_ms"], row["dense_ms"]
        found.add_row(
            str(row["width"]) if new else "",
            f"{row['voxels']:,}" if new else "",
            f"{row['engine']}-{row['precision']}",
            _ms(row["network_ms"]),
            "-".join(map(_ms, row["network_ms_quartiles"])) if row["turns"] > 1 else "one run",
            _ms(matmul),
            f"{row['network_ms'] / matmul:.2f}" if matmul else "-",
            _ms(dense) if new else "",
            f"{dense / row['network_ms']:.1f}" if dense else "-",
            _agreement(row),
        )
    return found


def stage_table(report: dict[str, Any]) -> "Table":
    """Milliseconds by stage, from message to message, with the engine that `auto` stands for, or the first."""
    default = next(((row["engine"], row["precision"]) for row in report["rows"] if row["natural"]), None)
    default = default or (report["rows"][0]["engine"], report["rows"][0]["precision"])
    title = f"From message to message with {'-'.join(default)}, milliseconds"
    stages = report["rows"][-1]["stages_ms"]
    found = _table(["width", "sensor", "points", "voxels", "voxel"], [*stages, "all", "all but\nnetwork"], title)
    for row in report["rows"]:
        if (row["engine"], row["precision"]) == default:
            found.add_row(
                str(row["width"]),
                row["sensor"],
                f"{row['points']:,}",
                f"{row['voxels']:,}",
                f"{row['voxel_size']:.3f} m",
                *map(_ms, row["stages_ms"].values()),
                _ms(row["total_ms"]),
                _ms(row["total_ms"] - row["network_ms"]),
            )
    return found


def process_table(report: dict[str, Any]) -> "Table":
    """Start and memory of each engine."""
    columns = "ready\nafter", "engine's\nload", "first\nscan", "resident", "peak", "imports\ntorch"
    found = _table(["width", "engine"], columns, "In a process of its own, from the cache")
    shown = set()
    for row in report["rows"]:
        key, process = (row["width"], row["engine"], row["precision"]), row["process"]
        if process is None or key in shown:
            continue
        shown.add(key)
        found.add_row(
            str(row["width"]),
            f"{row['engine']}-{row['precision']}",
            f"{process['startup_s']:.2f} s",
            f"{process['load_s']:.2f} s",
            f"{process['first_scan_ms']:.0f} ms",
            f"{process['resident_mb']:.0f} MB",
            f"{process['peak_mb']:.0f} MB",
            "yes" if process["torch"] else "no",
        )
    return found


def remarks(report: dict[str, Any]) -> list[str]:
    """Growth with the number of voxels, the machine, and what was left out."""
    from rich.markup import escape

    from cmp_seg_ros.speed.bench import by_engine

    machine, lines = report["machine"], []
    for (width, engine, precision), found in by_engine(report["rows"]).items():
        small, large = found.get(8000), found.get(64000)
        if small and large:
            lines.append(
                f"growth from 8,000 to 64,000 voxels: {large / small:.1f} ({engine}-{precision}, {width} wide)"
            )
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    lines.append(
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores; "
        f"Python {machine['python']}, {packages}"
    )
    lines += [f"skipped: {escape(name)}: {escape(why)}" for name, why in machine["skipped"].items()]
    return lines


def _table(names: list[str], figures: Iterable[str], title: str) -> "Table":
    from rich import box

    return table_of(names, figures, title=title, box=box.SIMPLE_HEAD)


def _agreement(row: dict[str, Any]) -> str:
    if row["agreement"] is not None:
        return f"{row['agreement']:.2%}"
    difference = row["probability_difference"]
    return "-" if difference is None else f"p +- {difference:.4f}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
