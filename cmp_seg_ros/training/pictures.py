"""Pictures of a run: its curves, and some validation scans with truth, prediction and errors."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Float32, UInt8
from cmp_seg_ros.training.augment import standardised, voxels_and_targets
from cmp_seg_ros.training.cache import ScanCache
from cmp_seg_ros.training.config import TrainConfig
from cmp_seg_ros.training.log import read, title_of

SCANS = 3


class ValidationPicture:
    """Remembers where the voxels of a few validation scans are, so that what is said of them can be drawn.

    Args:
        config: of the run.
        cache: of the validation scans.
        scans: how many are drawn, spread over the buildings.
    """

    def __init__(self, config: TrainConfig, cache: ScanCache, scans: int = SCANS) -> None:
        self.space = LabelSpace.load(config.label_space)
        total = config.data.validation_buildings * cache.scans_per_building
        self.chosen = np.unique(np.linspace(0, total - 1, min(scans, total)).round().astype(int)).tolist()
        self.xyz: list[Float32] = []  # (M, 3) of each, upright
        self.truth: list[UInt8] = []  # (M,) ids
        rng = np.random.default_rng(config.seed)  # draws nothing without augmentation
        for number in self.chosen:
            building, index = divmod(number, cache.scans_per_building)
            scan = standardised(cache.load(config.data.first_validation_building + building, index))
            voxels, target = voxels_and_targets(scan, config.preprocess, None, rng)
            self.xyz.append(voxels.xyz)
            self.truth.append(target)

    def save(self, path: Path, predicted: Sequence[UInt8], title: str = "") -> None:
        """Draw the chosen scans.

        Args:
            path: of the .png.
            predicted: (M,) ids of the voxels of every validation scan, in the order of `data.validation_batches`.
            title: of the picture.
        """
        height = 6.8 * len(self.chosen) + 1.8  # inches
        figure = plots.new_figure(16, height, title)
        rows = figure.add_gridspec(
            len(self.chosen), 1, left=0.05, right=0.985, top=1 - 1.0 / height, bottom=1.1 / height, hspace=0.14
        )
        for i, number in enumerate(self.chosen):
            xyz, truth, label = self.xyz[i], self.truth[i], predicted[number]
            compared = truth != UNLABELLED
            wrong = compared & (label != truth)
            places = rows[i].subgridspec(2, 3, height_ratios=(3, 1), hspace=0.18, wspace=0.13)
            above, side = ([figure.add_subplot(places[row, column]) for column in range(3)] for row in range(2))
            plots.draw_bird(above[0], xyz, truth, self.space, f"Validation scan {number}: truth")
            plots.draw_bird(
                above[1], xyz, np.where(compared, label, UNLABELLED).astype(np.uint8), self.space, "Prediction"
            )
            plots.draw_wrong(above[2], xyz, compared, wrong)
            plots.draw_side(side[0], xyz[compared], self.space.palette[truth[compared]])
            plots.draw_side(side[1], xyz[compared], self.space.palette[label[compared]])
            order = np.concatenate([np.flatnonzero(compared & ~wrong), np.flatnonzero(wrong)])
            plots.draw_side(side[2], xyz[order], np.where(wrong[order, None], plots.WRONG, plots.RIGHT))
        everything = np.concatenate(self.truth)
        legend = figure.add_axes((0.05, 0, 0.93, 0.6 / height))
        plots.draw_legend(legend, everything, self.space, "share of the truth above", columns=len(self.space.classes))
        plots.save(figure, path)


def curves(log: Path, picture: Path) -> None:
    """Draw loss and scores of a run's log.csv over steps."""
    series: dict[str, list[tuple[float, float]]] = {}
    for row in read(log):
        series.setdefault(row["name"], []).append((float(row["step"]), float(row["value"])))
    figure = plots.new_figure(12, 4.8, "")
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.06, right=0.985, top=0.92, bottom=0.11)
    if "loss" in series:
        steps, losses = np.array(series["loss"]).T
        window = max(1, len(losses) // 50)
        left.plot(steps, losses, color="0.8", lw=0.7, label="each logged step")
        smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
        left.plot(steps[window - 1 :], smooth, label=f"mean of {window}")
        left.legend()
    left.set(xlabel="step", ylabel="loss (cross-entropy + Lovasz)", title="Training")
    for name, values in series.items():
        if name != "loss":
            steps, scores = np.array(values).T
            right.plot(steps, scores, marker=".", lw=2.5 if "miou" in name else 1, label=title_of(name))
    right.set(xlabel="step", ylabel="IoU, 0..1", ylim=(0, 1), title="Validation buildings")
    right.grid(alpha=0.3)
    right.legend(fontsize=8)
    plots.save(figure, picture)
