"""Shared output of commands: counts, warnings, percentages, and tables."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cmp_seg_ros.evaluation import page

WIDTH = 200  # columns of tables in files and pipes, of which nothing is known
MARKS = {"good": "green", "bad": "red", "": ""}  # colours of cells


def counted(count: int, what: str) -> str:
    """A count with its noun: 1 building, 2 buildings."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def percent(value: float | None) -> str:
    """A fraction in per cent; a dash for None."""
    return "-" if value is None else f"{value:.1%}"


def wide_console(width: int = WIDTH, **options: Any) -> "Console":
    """A console of stdout, so wide in a file or a pipe, unless COLUMNS says otherwise; `options` of Console."""
    from rich.console import Console

    console = Console(highlight=False, **options)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = width
    return console


def show(*parts: "str | Table") -> None:
    """Print tables, and text as it is, to stdout."""
    console = wide_console(soft_wrap=True)
    for part in parts:
        console.print(part, markup=False)


def print_warnings(warnings: Iterable[str]) -> None:
    """Print warnings to stderr."""
    from rich.console import Console

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    for warning in warnings:
        console.print(f"warning: {warning}", markup=False)


def table_of(names: Iterable[str], figures: Iterable[str], **options: Any) -> "Table":
    """An empty table with left-aligned columns of names, then right-aligned ones of figures; `options` of Table."""
    from rich.table import Table

    table = Table(*names, **options)
    for figure in figures:
        table.add_column(figure, justify="right")
    return table


def printed(table: "page.Table") -> "Table":
    """A table of a page for the terminal; an empty row is a rule."""
    from rich.text import Text

    justify: Any = {"title_justify": "left", "caption_justify": "left"}
    found = table_of(table.header[:1], table.header[1:], title=table.title, caption=table.note or None, **justify)
    for row in table.rows:
        if row:
            found.add_row(*(cell if isinstance(cell, str) else Text(cell.text, MARKS[cell.mark]) for cell in row))
        else:
            found.add_section()
    return found
