"""`cmp-seg doctor`."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from cmp_seg_ros.bundle import DEFAULT_BUNDLE

WIDTH = 200  # in a file or a pipe
COLOURS = {"ok": "green", "absent": "dim", "warning": "yellow", "error": "bold red"}


def doctor(
    model: Annotated[str, typer.Option(help="The bundle to try: a folder, or a name in models/.")] = DEFAULT_BUNDLE,
    compile: Annotated[bool, typer.Option("--compile", help="Compile the kernels now where they are not.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Tell what is there and what is missing, each with its remedy. Exits with 1 if this machine cannot label scans."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from cmp_seg_ros.doctor import examine, works

    checks = examine(model, compile)
    if as_json:
        print(json.dumps({"works": works(checks), "checks": [asdict(check) for check in checks]}))
    else:
        table = Table("", "status", "found", "remedy", box=box.SIMPLE_HEAD, pad_edge=False)
        area = ""
        for check in checks:
            if check.area != area:
                table.add_section()
                table.add_row(Text(check.area, style="bold"))
                area = check.area
            cells = (f"  {check.name}", Text(check.status, style=COLOURS[check.status]), check.found, check.remedy)
            table.add_row(*(Text(cell, overflow="fold") if isinstance(cell, str) else cell for cell in cells))
        console = Console(highlight=False)
        if not console.is_terminal:  # commands stay in one piece
            console = Console(highlight=False, width=WIDTH)
        console.print(table)
        faults = [f"{check.name}: {check.found}" for check in checks if check.status == "error"]
        warnings = sum(check.status == "warning" for check in checks)
        console.print(
            f"this machine cannot label scans; {'; '.join(faults)}"
            if faults
            else f"this machine labels scans; {warnings} warning{'' if warnings == 1 else 's'}",
            markup=False,
        )
    if not works(checks):
        raise typer.Exit(1)
