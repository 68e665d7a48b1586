"""Evaluates a live run over ROS: labels, rates, latencies, pictures."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.datasets.frame import Frame
from cmp_seg_ros.datasets.labelled_bag import BAG, LabelledBagWriter
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation import pipeline, plots
from cmp_seg_ros.evaluation.labelling import OVERVIEW, image_to_draw
from cmp_seg_ros.evaluation.metrics import percentiles
from cmp_seg_ros.evaluation.pipeline import CannotLabel, Consumer, Result
from cmp_seg_ros.evaluation.report import LiveScans, Report
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.outputs import remove_bag
from cmp_seg_ros.scan import Labels

if TYPE_CHECKING:
    from cmp_seg_ros.nodes.live_run import LiveRun
    from cmp_seg_ros.pseudo_labels.labeller import PseudoLabeller

POINTS, IMAGE = "/lidar/points", "/camera/image"
TEACHER = "teacher.png"
DROPPED = "the node dropped it"  # a skipped frame, but not a problem of the bag
PICTURED = 0.4  # position of the scan that is drawn, as a fraction of the run


class Received:
    """The labels received from a node that the bag was played to."""

    segmenter = None

    def __init__(self, run: "LiveRun", label_space: LabelSpace) -> None:
        self.run, self.label_space = run, label_space

    def __call__(self, frame: Frame) -> Labels:
        found = self.run.labels_of(frame.scan.stamp)
        if found is None:
            raise CannotLabel(DROPPED, serious=False)
        return found


class LivePictures(Consumer):
    """Writes the labelled clouds as a bag, and pictures of one of them.

    Args:
        frames: number of labelled frames.
        teacher: its labels are drawn beside those of the network, in the image of the scan.
    """

    replaces = (BAG, OVERVIEW, TEACHER)

    def __init__(
        self, data: DataSet, space: LabelSpace, out: Path, frames: int, teacher: "PseudoLabeller | None" = None
    ) -> None:
        self.data, self.space, self.out, self.teacher = data, space, out, teacher
        self.pictured, self.done = int(PICTURED * (frames - 1)), 0
        self.result: Result | None = None

    def begin(self) -> None:
        remove_bag(self.out / BAG)
        self.bag = LabelledBagWriter(self.out / BAG, self.space)

    def add(self, result: Result, report: Report) -> None:
        if result.labels is None:
            return
        frame = result.frame
        self.bag.write_scan(frame.message, result.labels, frame.T_base_lidar, frame.T_world_lidar)
        if self.done == self.pictured:
            self.result = result
        self.done += 1

    def finish(self, report: Report) -> None:
        from cmp_seg_ros.pseudo_labels import pictures

        assert self.result is not None and self.result.labels is not None and report.miou is not None
        frame, labels = self.result.frame, self.result.labels
        image, camera = image_to_draw(frame, self.data)
        where = f"on simulated {report.sensor}, building {report.seed}"
        title = f"{report.model} ({report.engine}) {where}: mIoU {report.miou:.1%} (primary)"
        path, T = self.out / OVERVIEW, frame.T_base_lidar
        plots.overview(path, frame.scan, labels, self.space, image, camera, T, title=title)
        report.files += [OVERVIEW, f"{BAG}/"]
        if self.teacher is not None:
            title = f"{self.teacher.teacher.name} and {report.model} {where}"
            pictures.beside(self.out / TEACHER, frame, labels.label, self.teacher, title)
            report.files.append(TEACHER)

    def close(self) -> None:
        self.bag.close()


class LiveFigures(Consumer):
    """Reports rates, latencies and counts of the run, measured by the node and the receiver."""

    def __init__(self, run: "LiveRun", bundle: Bundle) -> None:
        self.run, self.bundle = run, bundle
        self.unknown = len(run.clouds)  # labelled clouds without a scan in the bag

    def add(self, result: Result, report: Report) -> None:
        self.unknown -= self.run.labels_of(result.frame.scan.stamp) is not None

    def finish(self, report: Report) -> None:
        if self.unknown > 0:
            raise UserError(f"{self.unknown} labelled clouds are of no scan of the bag; is something else publishing?")
        run, infos = self.run, list(self.run.scan_infos.values())
        arrivals = np.array([cloud.time for cloud in run.clouds]) * 1e-9
        stages = sorted({key.removeprefix("ms.") for info in infos for key in info if key.startswith("ms.")})
        report.model, report.bundle = self.bundle.description.name, self.bundle.hash
        report.engine = run.diagnostics.get("engine", "")
        report.rate_hz = float((len(arrivals) - 1) / np.ptp(arrivals)) if len(arrivals) > 1 else 0.0
        report.latency_ms = percentiles(1e-6 * (cloud.time - cloud.stamp) for cloud in run.clouds)
        report.latency_by_frame_ms = [round(1e-6 * (cloud.time - cloud.stamp), 3) for cloud in run.clouds]
        report.stages_ms = {
            stage: percentiles(float(info[f"ms.{stage}"]) for info in infos if info.get(f"ms.{stage}"))
            for stage in stages
        }
        reasons = {
            key.removeprefix("dropped."): int(value)
            for key, value in run.diagnostics.items()
            if key.startswith("dropped.")
        }
        report.scans = LiveScans(
            played=run.player["messages"]["/points"],
            received=len(run.clouds),
            dropped_by_reason=reasons,
            **{key: int(run.diagnostics[key]) for key in ("in", "out", "dropped")},
        )
        report.voxels_per_scan = float(np.median([int(info["voxels"]) for info in infos]))
        report.voxel_size = float(np.median([float(info["voxel_size"]) for info in infos]))
        sizes = Counter(f"{float(info['voxel_size']):g}" for info in infos)
        report.scans_by_voxel_size = dict(sorted(sizes.items()))
        report.memory_mb = run.memory_mb


def evaluate(
    run: "LiveRun",
    data: DataSet,
    bundle: Bundle,
    report: Report,
    consumers: Sequence[Consumer],
    out: Path | None = None,
    needs: tuple[str, ...] = (),
) -> Report:
    """Evaluate the labels that a node gave to the scans of a bag, and complete the report.

    Args:
        run: the bag, as it was played to the node.
        bundle: the node's.
        consumers: of the results; after them the report gets rates, latencies and counts.
        out, needs: as for `pipeline.run`.

    Raises:
        UserError: no cloud was labelled, or the labelled clouds are not in the bag.
    """
    if not run.clouds:
        raise UserError("received no labelled cloud from the node; see its log, or retry on a less busy machine")
    labels = Received(run, bundle.description.label_space)
    report.played_at = run.rate
    return pipeline.run(data, labels, [LiveFigures(run, bundle), *consumers], report, out, needs=needs)
