"""The report of a benchmark suite as a picture."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.evaluation.suites.scores import MEAN
from cmp_seg_ros.evaluation.suites.tables import heading, in_detail

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 0.8  # of a group of bars
ROW = 4.3  # inches
_NONE = (None, None)  # of a sensor that a row is not taken with
Figure = tuple[float | None, list[float] | None]  # with its interval


def draw(path: Path, report: dict[str, Any]) -> None:
    """Save the primary mIoU of every row by sensor and their differences; and for rows in detail, classes and range."""
    names = in_detail(report)
    rows = report["rows"]
    sensors = list(dict.fromkeys(sensor for row in rows.values() for sensor in row["sensors"]))
    height = ROW * (1 + len(names)) + 1
    figure = plots.new_figure(15, height, heading(report).replace(", on ", "\non "))
    axes = figure.subplots(1 + len(names), 2, width_ratios=(2.3, 1), squeeze=False)
    figure.subplots_adjust(
        left=0.05, right=0.985, top=1 - 1.25 / height, bottom=0.95 / height, hspace=0.36, wspace=0.18
    )
    shown = [name for name, row in rows.items() if not (row.get("response") or row.get("statistics"))]
    by_row = {sensor: [_figure(rows[name]["sensors"].get(sensor)) for name in shown] for sensor in sensors}
    bars(axes[0, 0], shown, by_row, [_limit(report, name, "primary") for name in shown])
    axes[0, 0].set(title="Rows with intensities as they are, or none", ylabel="primary mIoU in per cent")
    axes[0, 0].tick_params(axis="x", labelsize=9 if len(shown) < 8 else 6)
    _differences(axes[0, 1], report)
    for (left, right), name in zip(axes[1:], names, strict=True):
        columns = rows[name]["sensors"]
        classes = list(next(iter(columns.values()))["iou"])
        by_class = {
            sensor: [(column["iou"][c], column["iou_interval"][c]) if column else _NONE for c in classes]
            for sensor in sensors
            for column in [columns.get(sensor)]
        }
        bars(left, classes, by_class, [_limit(report, name, "class")] * len(classes))
        left.set(title=f"{name}: classes of the primary reading", ylabel="IoU in per cent")
        _ranges(right, report, name, sensors)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    level = f"whiskers: {report['bootstrap']['level']:.0%} of {report['bootstrap']['resamples']} draws of buildings"
    if report["buildings"] == 1:
        level = "no whiskers: a single building"
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False, title=level)
    plots.save(figure, path)


def bars(axes: "Axes", groups: Sequence[str], figures: dict[str, list[Figure]], limits: Sequence[float | None]) -> None:
    """Bars in groups, one of each series in every group, with intervals as whiskers and limits as dashed lines.

    Args:
        figures: by series, one for each group; fractions.
        limits: of each group.
    """
    width = WIDTH / len(figures)
    for i, (name, values) in enumerate(figures.items()):
        place = np.arange(len(groups)) + (i - (len(figures) - 1) / 2) * width
        height = 100 * np.array([np.nan if value is None else value for value, _ in values])
        axes.bar(place, height, 0.92 * width, color=f"C{i}", label=name)
        ends = 100 * np.array([[np.nan, np.nan] if interval is None else interval for _, interval in values]).T
        axes.errorbar(place, height, np.abs(ends - height), fmt="none", ecolor="black", elinewidth=0.8, capsize=1.5)
    if known := [(group, 100 * limit) for group, limit in enumerate(limits) if limit is not None]:
        group, limit = np.transpose(known)
        axes.hlines(limit, group - WIDTH / 2, group + WIDTH / 2, "black", "dashed", linewidth=1.3, label="must")
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylim(0, 100)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def _differences(axes: "Axes", report: dict[str, Any]) -> None:
    compared = {name: row for name, row in report["rows"].items() if "against" in row}
    if not compared:
        axes.set_axis_off()
        return
    for place, (name, row) in enumerate(compared.items()):
        value, interval = row["difference"][MEAN], row["difference"]["interval"]
        if value is None:
            continue
        whiskers = None if interval is None else 100 * np.abs(np.array(interval) - value)[:, None]
        axes.errorbar([100 * value], [place], xerr=whiskers, fmt="o", color="black", capsize=4)
        by_sensor = [found["difference"] for found in row["difference"]["sensors"].values()]
        for i, of_sensor in enumerate(by_sensor):
            if of_sensor is not None:
                axes.plot(100 * of_sensor, place - 0.2, "|", color=f"C{i}", markersize=11, markeredgewidth=2)
        limit = _limit(report, name, "drop")
        if limit is not None:
            axes.plot([100 * limit] * 2, [place - 0.35, place + 0.35], "k--", lw=1.3)
    axes.axvline(0, color="0.6", lw=0.8)
    few = len(compared) < 12
    names = [f"{name}\nagainst {row['against']}" if few else name for name, row in compared.items()]
    axes.set_yticks(range(len(compared)), names, fontsize=9 if few else 4.5)
    axes.set_ylim(len(compared) - 0.5, -0.5)
    axes.set(title="Differences: mean over sensors, and each", xlabel="points of primary mIoU")
    axes.grid(axis="x", alpha=0.3)


def _ranges(axes: "Axes", report: dict[str, Any], name: str, sensors: Sequence[str]) -> None:
    edges = report["range_bins"]
    columns = report["rows"][name]["sensors"]
    for i, sensor in enumerate(sensors):
        if (column := columns.get(sensor)) is None:
            continue
        values = [np.nan if found["primary"] is None else 100 * found["primary"] for found in column["by_range"]]
        axes.plot(range(len(edges)), values, ".-", color=f"C{i}")
    bins = [f"{low:g}-{high:g}" for low, high in pairwise(edges)]
    axes.set_xticks(range(len(edges)), [*bins, f"over {edges[-1]:g}"])
    axes.set_xlim(-0.3, len(edges) - 0.5)
    axes.set_ylim(0, 100)
    axes.set(title=f"{name}: over the range", xlabel="metres from the lidar", ylabel="primary mIoU in per cent")
    axes.grid(alpha=0.3)


def _figure(column: dict[str, Any] | None) -> Figure:
    return (column["primary"], column["interval"]) if column else _NONE


def _limit(report: dict[str, Any], row: str, kind: str) -> float | None:
    found = [must["limit"] for must in report["musts"] if must["row"] == row and must["kind"] == kind]
    return found[0] if found else None
