"""What a live run over ROS was worth: labels against the truth in the bag, rates, latencies, pictures."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cmp_seg_ros.datasets.bag import Bag
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.evaluation.metrics import PRIMARY, STRICT, Confusion, percentiles, readings
from cmp_seg_ros.geometry.calibration import Calibration
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import images, point_cloud2
from cmp_seg_ros.scan import UInt8

if TYPE_CHECKING:
    from sensor_msgs.msg import PointCloud2

    from cmp_seg_ros.bundle import BundleDescription
    from cmp_seg_ros.nodes.live_run import LiveRun

TRUTH_SPACE = "structural6"
POINTS, TRUTH, IMAGE = "/lidar/points", "/truth/points", "/camera/image"
PICTURED = 0.4  # which of the labelled scans is drawn, as a fraction of the run


class Evaluated(NamedTuple):
    """Figures of a run, and its labelled clouds by their stamps in the bag."""

    report: dict[str, Any]
    messages: dict[int, "PointCloud2"]

    @property
    def pictured(self) -> "PointCloud2":
        """The labelled scan that stands for the run in the picture."""
        stamps = sorted(self.messages)
        return self.messages[stamps[int(PICTURED * (len(stamps) - 1))]]


def comparable(space: LabelSpace) -> Confusion:
    """An empty confusion of the truth and labels in `space`. Raises UserError if these cannot be compared."""
    confusion = Confusion(LabelSpace.load(TRUTH_SPACE), space)
    readings(confusion, (PRIMARY, STRICT))
    return confusion


def evaluate(run: "LiveRun", bag: Path, description: "BundleDescription", rate: float = 1.0) -> Evaluated:
    """Compare labelled clouds with the truth of a simulated bag, which was played `rate` times as fast.

    Raises:
        UserError: nothing was labelled, or what was labelled is not in the bag.
    """
    if not run.clouds:
        raise UserError("no labelled cloud came from the node; see its log, or try again on a less busy machine")
    truths = _truths(bag)
    messages = run.messages(truths, rate)
    confusion = comparable(description.label_space)
    for stamp, message in messages.items():
        confusion.add(truths[stamp], point_cloud2.decode_labels(message).label)
    scores = readings(confusion)
    own = scores.get(TRUTH_SPACE)  # not of labels that tell fewer classes apart

    infos = list(run.scan_infos.values())
    latency = [1e-6 * (cloud.time - cloud.stamp) for cloud in run.clouds]
    arrivals = np.array([cloud.time for cloud in run.clouds]) * 1e-9
    stages = sorted({key.removeprefix("ms.") for info in infos for key in info if key.startswith("ms.")})
    counts = {key: int(run.diagnostics[key]) for key in ("in", "out", "dropped")}
    report = {
        "rate_hz": float((len(arrivals) - 1) / np.ptp(arrivals)) if len(arrivals) > 1 else 0.0,
        "latency_ms": percentiles(latency),
        "stages_ms": {
            stage: percentiles([float(info[f"ms.{stage}"]) for info in infos if info.get(f"ms.{stage}")])
            for stage in stages
        },
        "scans": {
            "played": run.player["messages"]["/points"],
            **counts,
            "received": len(run.clouds),
            "dropped_by_reason": {
                key.removeprefix("dropped."): int(value)
                for key, value in run.diagnostics.items()
                if key.startswith("dropped.")
            },
        },
        "miou": scores[PRIMARY].miou(),
        "miou_strict": scores[STRICT].miou(),
        "miou_structural6": own.miou() if own else None,
        "iou": scores[PRIMARY].report()["iou"],
        "iou_structural6": own.report()["iou"] if own else dict.fromkeys(confusion.space.names),
        "points_by_class": confusion.points(),
        "engine": run.diagnostics.get("engine", ""),
        "model": description.name,
        "points_per_scan": float(np.median([int(info["points"]) for info in infos])),
        "voxels_per_scan": float(np.median([int(info["voxels"]) for info in infos])),
        "voxel_size": float(np.median([float(info["voxel_size"]) for info in infos])),
        "scans_by_voxel_size": dict(sorted(Counter(f"{float(info['voxel_size']):g}" for info in infos).items())),
        "memory_mb": run.memory_mb,
    }
    return Evaluated(report, messages)


def picture(
    path: Path, message: "PointCloud2", space: LabelSpace, bag: Path, calibration: Calibration, title: str
) -> None:
    """Save the overview of a labelled cloud, over the camera image of the bag that is nearest in time."""
    scan = point_cloud2.decode(message)
    nearest = min(
        Bag(bag).messages([IMAGE]),
        key=lambda found: abs(point_cloud2.stamp_ns(found.message.header) - scan.stamp),
        default=None,
    )
    camera = calibration.camera() if nearest is not None else None
    plots.overview(
        path,
        scan,
        point_cloud2.decode_labels(message),
        space,
        None if nearest is None else images.to_rgb(nearest.message),
        camera,
        None if camera is None else np.array(camera.T_camera_lidar),
        np.array(calibration.lidar().T_base_lidar),
        title=title,
    )


def _truths(bag: Path) -> dict[int, UInt8]:
    """(N,) truth of each scan by its stamp."""
    found = {
        point_cloud2.stamp_ns(message.header): point_cloud2.decode_labels(message, TRUTH_SPACE).label
        for _, _, message in Bag(bag).messages([TRUTH])
    }
    if not found:
        raise UserError(f"bag {bag} has no truth on {TRUTH}; it must come from cmp-seg simulate")
    return found
