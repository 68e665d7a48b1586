"""Time against the number of voxels."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmp_seg_ros.engine import registry
from cmp_seg_ros.evaluation.plots import new_figure, save
from cmp_seg_ros.speed.bench import by_engine

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = {"int8": ":", "bf16": "--", "fp16": "-.", "fp32": "-"}
MARKERS = {"int8": "v", "bf16": "s", "fp16": "^", "fp32": "o"}  # a single size of scan has no line


def plot(report: dict[str, Any], path: Path) -> None:
    """Save a picture with a panel for each width: the network of every engine, bare products and the plain network."""
    rows = [row for row in report["rows"] if not row["natural"]]
    widths = sorted({row["width"] for row in rows})
    title = f"One scan through WaffleIron, 24 layers: network alone. {report['machine']['processor']}"
    figure = new_figure(3.4 + 4.4 * len(widths), 7.0, f"{title}, {report['machine']['threads']} threads")
    panels = figure.subplots(1, len(widths), squeeze=False, sharey=True)[0]
    for axes, width in zip(panels, widths, strict=True):
        own = [row for row in rows if row["width"] == width]
        for (_, engine, precision), series in by_engine(own).items():
            color, label = registry.find_all(engine)[0][0].colour, f"{engine}, {precision}"
            _line(axes, series, precision, color=color, markersize=5, label=label, zorder=3)
        for precision in dict.fromkeys(row["precision"] for row in own):
            found = (row for row in own if row["precision"] == precision and row["matmul_ms"])
            if series := {row["voxels"]: row["matmul_ms"] for row in found}:
                label = f"bare matrix products, {precision}"
                _line(axes, series, precision, color="#888888", markersize=3, label=label)
        if dense := {row["voxels"]: row["dense_ms"] for row in own if row["dense_ms"]}:
            axes.plot(*zip(*sorted(dense.items()), strict=True), "k-X", markersize=6, label="plain PyTorch, full grids")
        axes.axhline(1000 / 15, color="#bbbbbb", linewidth=1, zorder=0)
        axes.annotate("15 Hz", (0.01, 1000 / 15), (0, 2), ("axes fraction", "data"), "offset points", color="#888888")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        sizes = sorted({row["voxels"] for row in own})
        axes.set_xticks(sizes, [f"{size / 1000:g}k" for size in sizes])
        axes.minorticks_on()
        axes.tick_params(axis="x", which="minor", bottom=False)
        axes.set_title(f"width {width}", fontsize=12)
        axes.set_xlabel("voxels in the scan")
        axes.grid(which="both", axis="y", color="#eeeeee", linewidth=0.6)
        axes.set_axisbelow(True)
    panels[0].set_ylabel("milliseconds (median)")
    legend = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    inches = figure.get_figwidth()
    figure.legend(legend.values(), legend.keys(), loc="center right", fontsize=9, frameon=False, handlelength=3)
    figure.subplots_adjust(left=0.8 / inches, right=1 - 2.6 / inches, top=0.88, bottom=0.09, wspace=0.05)
    save(figure, path)


def _line(axes: "Axes", series: dict[int, float], precision: str, **style: Any) -> None:
    """Milliseconds by voxels, in the style of a precision."""
    look = {"linestyle": LINES.get(precision, "-"), "marker": MARKERS.get(precision, "o"), **style}
    axes.plot(*zip(*sorted(series.items()), strict=True), **look)
