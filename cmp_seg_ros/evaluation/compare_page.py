"""The page of a comparison of two reports, and its plot."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cmp_seg_ros.evaluation import compare
from cmp_seg_ros.evaluation.compare import WORDS, Comparison, Figure, format_difference, format_interval, format_value
from cmp_seg_ros.evaluation.page import NONE, Cell, Notes, Page, Picture, Row, Section, Table
from cmp_seg_ros.evaluation.plots import faint_grid, new_figure, save

COLOURS = {"better": "C2", "worse": "C3", "noise": "0.5", "equal": "0.5"}
LINE = 0.24  # inches


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


def draw(path: Path, comparison: Comparison) -> None:
    """Save a plot of the differences with intervals, one panel per section that is not detail; nothing if none has."""
    drawn = [
        (section.title, figures)
        for section in comparison.sections
        if not section.detail and (figures := [figure for figure in section.figures if figure.interval is not None])
    ]
    if not drawn:
        return
    heights = [1 + len(figures) for _, figures in drawn]
    height = LINE * (sum(heights) + 1.5 * len(drawn)) + 2
    picture = new_figure(9, height, f"B minus A, with {comparison.bootstrap.level:.0%} intervals")
    panels = picture.subplots(len(drawn), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, figures) in zip(panels, drawn, strict=True):
        for place, figure in enumerate(figures):
            assert figure.interval is not None and figure.difference is not None
            colour, ends = COLOURS[figure.verdict], 100 * np.array(figure.interval)
            axes.plot(ends, [place, place], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(100 * figure.difference, place, "o", color=colour, markersize=5)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(figures)), [figure.name for figure in figures], fontsize=9)
        axes.set_ylim(len(figures) - 0.4, -0.6)
        axes.set_title(title, fontsize=11, loc="left")
        faint_grid(axes, "x")
    panels[-1].set_xlabel("percentage points; green: B better, red: B worse, grey: noise")
    picture.subplots_adjust(left=0.27, right=0.97, top=0.975 - 0.75 / height, bottom=0.6 / height, hspace=0.5)
    save(picture, path)
