"""`cmp-seg doctor`."""

import json
from dataclasses import asdict
from itertools import groupby
from typing import Annotated

import typer

from cmp_seg_ros.bundle import DEFAULT_BUNDLE
from cmp_seg_ros.cli import options
from cmp_seg_ros.cli.tables import wide_console

COLOURS = {"ok": "green", "absent": "dim", "warning": "yellow", "error": "bold red"}


def doctor(
    model: Annotated[str, typer.Option(help="The bundle to try: a folder, or a name in models/.")] = DEFAULT_BUNDLE,
    compile: Annotated[bool, typer.Option("--compile", help="Compile kernels that are not compiled yet.")] = False,
    as_json: options.Json = False,
) -> None:
    """Check this machine and suggest fixes. Exits with 1 if it cannot label scans."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from cmp_seg_ros.doctor import examine

    checks = examine(model, compile)
    faults = [f"{found.name}: {found.found}" for found in checks if found.status == "error"]
    if as_json:
        print(json.dumps({"works": not faults, "checks": [asdict(found) for found in checks]}))
        raise typer.Exit(bool(faults))
    table = Table("", "status", "found", "remedy", box=box.SIMPLE_HEAD, pad_edge=False)
    for area, group in groupby(checks, lambda found: found.area):
        table.add_section()
        table.add_row(Text(area, style="bold"))
        for found in group:
            texts = (Text(text, overflow="fold") for text in (found.found, found.remedy))
            table.add_row(Text(f"  {found.name}"), Text(found.status, COLOURS[found.status]), *texts)
    console = wide_console()
    console.print(table)
    warnings = sum(found.status == "warning" for found in checks)
    good = f"this machine labels scans; warnings: {warnings}"
    console.print(f"this machine cannot label scans; {'; '.join(faults)}" if faults else good, markup=False)
    raise typer.Exit(bool(faults))
