"""The page of a comparison of two reports."""

from collections.abc import Sequence
from pathlib import Path

from cmp_seg_ros.evaluation import compare
from cmp_seg_ros.evaluation.compare import WORDS, Comparison, Figure, format_difference, format_interval, format_value
from cmp_seg_ros.evaluation.page import NONE, Cell, Notes, Page, Picture, Row, Section, Table


def page_of(comparison: Comparison, pictures: Sequence[Picture]) -> Page:
    """The page; sections of detail are folded."""
    a, b = comparison.a, comparison.b
    about: list[Row] = [["report", a.path, b.path]]
    about += [[key, a.about.get(key, NONE), b.about.get(key, NONE)] for key in {**a.about, **b.about}]
    level = f"{comparison.bootstrap.level:.0%}"
    text = f"Fractions in per cent, differences in points; {level} intervals."
    sections = [
        Section("What was compared", [Table(["", "A", "B"], about)]),
        Section("What differs by more than noise", [Notes(comparison.summary)] if comparison.summary else []),
        Section("Pictures", pictures),
        Section("All figures", [text, *map(table_of, comparison.sections)]),
    ]
    names = [Path(source.path).parent.name for source in (a, b)]
    return Page(f"Comparison of {names[0]} and {names[1]}", sections, notes=[Notes(comparison.notes)])


def table_of(section: compare.Section) -> Table:
    """Figures of both reports, their difference, its interval, and what that means."""
    header, rows = ["", "A", "B", "B - A", "interval", ""], [_row(figure) for figure in section.figures]
    return Table(header, rows, section.title, f"Intervals: {section.intervals}.", section.detail)


def _row(figure: Figure) -> Row:
    verdict = Cell(WORDS[figure.verdict], mark={"better": "good", "worse": "bad"}.get(figure.verdict, ""))
    values = (format_value(figure.a, figure), format_value(figure.b, figure))
    return [figure.name, *values, format_difference(figure), format_interval(figure), verdict]
