"""What labelling and evaluating share: sensors around an input, the segmenter, checks of a scan."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cmp_seg_ros.datasets.bag import Bag
from cmp_seg_ros.datasets.base import Sample
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.plots import upright
from cmp_seg_ros.geometry.calibration import CalibratedCamera, CalibratedLidar, Calibration, Transform
from cmp_seg_ros.intensity import PLAUSIBLE
from cmp_seg_ros.messages.images import to_rgb
from cmp_seg_ros.messages.point_cloud2 import stamp_ns
from cmp_seg_ros.scan import UNLABELLED, Labels, Scan, UInt8
from cmp_seg_ros.segmenter import Segmenter
from cmp_seg_ros.waffleiron.preprocess import inside_fov

CALIBRATION = "calibration.yaml"
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
PICTURES = (".jpg", ".jpeg", ".png")
OUTSIDE = 0.2  # share of the returns beyond the model's field of view that is worth a word
LATE = 500_000_000  # nanoseconds between a scan and an image that still go together


class Rig:
    """The calibration of the sensors of an input.

    Args:
        path: the input. A calibration.yaml in it or beside it is taken where `calibration` is None.
        calibration: file.
        lidar: name of the lidar; needed only where the calibration has several.

    Raises:
        UserError: the file is not valid, or has no such lidar.
    """

    def __init__(self, path: Path, calibration: Path | None = None, lidar: str = "") -> None:
        found = [folder / CALIBRATION for folder in (path, path.resolve().parent) if (folder / CALIBRATION).is_file()]
        self.file = calibration or (found[0] if found else None)
        self.calibration = Calibration() if self.file is None else Calibration.load(self.file)
        self.lidar = self.calibration.lidar(lidar) if lidar or self.calibration.lidars else None

    @property
    def T_base_lidar(self) -> Transform | None:
        return None if self.lidar is None else np.array(self.lidar.T_base_lidar)

    def camera(self) -> CalibratedCamera | None:
        """The only camera."""
        cameras = list(self.calibration.cameras.values())
        return cameras[0] if len(cameras) == 1 else None

    def segmenter(
        self, model: str, engine: str, label_space: str | None = None, voxel_size: float | None = None
    ) -> Segmenter:
        """The model, as this rig needs it. Raises UserError."""
        statistics = (None, None) if self.lidar is None else (self.lidar.intensity_mean, self.lidar.intensity_std)
        segmenter = Segmenter.from_bundle(model, engine, self.T_base_lidar, label_space, *statistics)
        segmenter.voxel_size = voxel_size or segmenter.voxel_size
        return segmenter


class Finding(NamedTuple):
    """Something about a scan that its user should know; serious where labels are missing or mean little."""

    kind: str
    text: str
    serious: bool


def check(sample: Sample, labels: Labels, segmenter: Segmenter, rig: Rig, path: Path) -> Iterator[Finding]:
    """What is to be said of a labelled scan of the input `path`, with the remedy."""
    name = name_of(sample, path)
    valid = sample.scan.valid()
    returns = int(valid.sum())
    config = segmenter.bundle.description.preprocess
    if returns == 0:
        text = f"{name} has no return: all its {len(valid)} points are NaN, infinite or at the origin"
        yield Finding("no return", f"{text}; look at the sensor and its driver", True)
        return
    if returns <= config.neighbours:
        text = f"{name} has too few returns, {returns}: the network looks at {config.neighbours} neighbours of a point"
        yield Finding("few returns", f"{text}, so these labels mean little; give whole scans", True)
    view = zip("xyz", config.fov_min, config.fov_max, strict=True)
    beyond = f"beyond the model's field of view ({', '.join(f'{axis} {a:g}..{b:g}' for axis, a, b in view)} m)"
    remedy = "give points in metres around the lidar, z up"
    missing = int((labels.label[valid] == UNLABELLED).sum())
    inside = inside_fov(upright(sample.scan.xyz[valid], rig.T_base_lidar), config)
    if missing:
        yield Finding(
            "unlabelled", f"{name} has {missing} of {returns} returns without a label, {beyond}; {remedy}", True
        )
    elif (outside := 1 - float(inside.mean())) > OUTSIDE:
        text = f"{name} has {outside:.0%} of its returns {beyond}; they got the label of the nearest voxel"
        yield Finding("outside", f"{text}; {remedy}", False)
    if sample.scan.intensity is None or not (np.abs(sample.scan.intensity) < PLAUSIBLE).any():
        yield Finding("intensity", f"{name} has no intensity of use: the labels rest on shape alone", False)


def image_of(sample: Sample, path: Path, bag: Bag | None, lidar: CalibratedLidar | None) -> UInt8 | None:
    """(H, W, 3) camera image of a scan: the picture of its name beside its file, or the nearest image of its bag.

    None where there is none or, in a bag, more than one topic of images. Raises UserError where it cannot be read.
    """
    if bag is None:
        from PIL import Image

        folder, stem = (path, Path(sample.key).name) if path.is_dir() else (path.parent, path.stem)
        found = [folder / f"{stem}{suffix}" for suffix in PICTURES if (folder / f"{stem}{suffix}").is_file()]
        try:
            return np.asarray(Image.open(found[0]).convert("RGB")) if found else None
        except (OSError, SyntaxError) as error:  # SyntaxError: of a damaged PNG
            raise UserError(f"picture {found[0]} cannot be read: {error}; copy it again or take it away") from error
    topics = [name for name, info in bag.topics.items() if info.type in IMAGE_TYPES and "truth" not in name]
    if len(topics) != 1 or sample.scan.stamp == 0:
        return None
    due = sample.scan.stamp if lidar is None else lidar.camera_stamp(sample.scan.stamp)
    nearest: tuple[int, Any] | None = None
    for message in bag.messages(topics):
        away = stamp_ns(message.message.header) - due
        if nearest is None or abs(away) < nearest[0]:
            nearest = (abs(away), message.message)
        if away > LATE:
            break
    return to_rgb(nearest[1]) if nearest and nearest[0] <= LATE else None


def shares(count: Iterable[int], names: Iterable[str]) -> dict[str, float]:
    """Share of each class, 0..1."""
    counts = list(count)
    total = max(1, sum(counts))
    return {name: value / total for name, value in zip(names, counts, strict=True)}


def name_of(sample: Sample, path: Path) -> str:
    """The scan for a reader of messages: its input, and which of it where there are several."""
    return str(path) if sample.key == path.stem else f"scan {sample.key} of {path}"


def counted(count: int, what: str) -> str:
    """As one says it: 1 building, 2 buildings."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def describe(scan: Scan) -> str:
    """A few words on a scan for a title."""
    height, width = scan.shape
    size = f"{height} x {width} points" if height > 1 else f"{width:,} points"
    return f"{size}, {int(scan.valid().sum()):,} returns"
