"""Evaluates a live run over ROS: labels against the truth in the bag, rates, latencies, pictures."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cmp_seg_ros.datasets.bag import DataSet
from cmp_seg_ros.datasets.frame import TRUTH, Frame
from cmp_seg_ros.datasets.labelled_bag import BAG, LabelledBagWriter
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation import pipeline, plots
from cmp_seg_ros.evaluation.labelling import OVERVIEW, image_to_draw
from cmp_seg_ros.evaluation.metrics import percentiles
from cmp_seg_ros.evaluation.pipeline import Consumer, Result
from cmp_seg_ros.evaluation.report import LiveScans, Report
from cmp_seg_ros.evaluation.scoring import Scores, space_of
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import point_cloud2
from cmp_seg_ros.outputs import remove_bag
from cmp_seg_ros.scan import Labels

if TYPE_CHECKING:
    from sensor_msgs.msg import PointCloud2

    from cmp_seg_ros.nodes.live_run import LiveRun

POINTS, IMAGE = "/lidar/points", "/camera/image"
DROPPED = "the node dropped it"  # a skipped frame, but not a problem of the bag
PICTURED = 0.4  # position of the scan that is drawn, as a fraction of the run


class Received:
    """The labels of the clouds received from a node, by the stamps of their scans in the bag.

    Args:
        clouds: labelled clouds by stamp, nanoseconds.
        label_space: of their labels.
    """

    segmenter = None

    def __init__(self, clouds: "dict[int, PointCloud2]", label_space: LabelSpace) -> None:
        self.clouds, self.label_space = clouds, label_space

    def __call__(self, frame: Frame) -> Labels:
        cloud = self.clouds.get(frame.scan.stamp)
        if cloud is None:
            raise UserError(DROPPED)
        return point_cloud2.decode_labels(cloud)


class LivePictures(Consumer):
    """Writes the labelled clouds as a bag, and an overview of one of them.

    Args:
        frames: number of labelled frames.
    """

    replaces = (BAG, OVERVIEW)

    def __init__(self, data: DataSet, space: LabelSpace, out: Path, frames: int) -> None:
        self.data, self.space, self.out = data, space, out
        self.pictured, self.done = int(PICTURED * (frames - 1)), 0
        self.result: Result | None = None

    def begin(self) -> None:
        remove_bag(self.out / BAG)
        self.bag = LabelledBagWriter(self.out / BAG, self.space)

    def add(self, result: Result, report: Report) -> None:
        if result.labels is None:
            return
        frame = result.frame
        self.bag.write(frame.message, result.labels, frame.T_base_lidar, frame.T_world_lidar)
        if self.done == self.pictured:
            self.result = result
        self.done += 1

    def finish(self, report: Report) -> None:
        assert self.result is not None and self.result.labels is not None and report.miou is not None
        frame = self.result.frame
        image, camera = image_to_draw(frame, self.data)
        title = (
            f"{report.model} ({report.engine}) on simulated {report.sensor}, building {report.seed}: "
            f"mIoU {report.miou:.1%} (primary)"
        )
        plots.overview(
            self.out / OVERVIEW,
            frame.scan,
            self.result.labels,
            self.space,
            image,
            camera,
            None if camera is None else np.array(camera.T_camera_lidar),
            frame.T_base_lidar,
            title=title,
        )
        report.files += [OVERVIEW, f"{BAG}/"]

    def close(self) -> None:
        self.bag.close()


class LiveFigures(Consumer):
    """Reports rates, latencies and counts of the run, measured by the node and the receiver."""

    def __init__(self, run: "LiveRun", model: str) -> None:
        self.run, self.model = run, model

    def finish(self, report: Report) -> None:
        run, infos = self.run, list(self.run.scan_infos.values())
        arrivals = np.array([cloud.time for cloud in run.clouds]) * 1e-9
        stages = sorted({key.removeprefix("ms.") for info in infos for key in info if key.startswith("ms.")})
        report.model, report.engine = self.model, run.diagnostics.get("engine", "")
        report.rate_hz = float((len(arrivals) - 1) / np.ptp(arrivals)) if len(arrivals) > 1 else 0.0
        report.latency_ms = percentiles(1e-6 * (cloud.time - cloud.stamp) for cloud in run.clouds)
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
        report.problems = [problem for problem in report.problems if not problem.endswith(DROPPED)]


def evaluate(
    run: "LiveRun", data: DataSet, space: LabelSpace, model: str, report: Report, out: Path | None = None
) -> Report:
    """Compare labelled clouds with the truth in the simulated bag that was played, and complete the report.

    Args:
        space: of the labels.
        model: name of the node's bundle.
        report: with `seed`, `sensor` and `played_at`.
        out: folder for the labelled bag and the overview.

    Raises:
        UserError: no cloud was labelled, or the labelled clouds are not in the bag.
    """
    if not run.clouds:
        raise UserError("received no labelled cloud from the node; see its log, or retry on a less busy machine")
    clouds = run.messages((frame.scan.stamp for frame in data), report.played_at or 1.0)
    consumers: list[Consumer] = [Scores(space_of(data), space), LiveFigures(run, model)]
    if out is not None:
        consumers.append(LivePictures(data, space, out, len(clouds)))
    return pipeline.run(data, Received(clouds, space), consumers, report, out, needs=TRUTH)
