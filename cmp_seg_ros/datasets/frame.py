"""One moment of a recording: all that training, evaluation, maps and pictures are made from.

for frame in open_input("drive"):
    frame.scan, frame.labels["truth"].label, frame.images["left"].rgb(), frame.T_world_lidar
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry import motion
from cmp_seg_ros.geometry.calibration import CalibratedCamera, Transform
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages.images import is_jpeg, to_jpeg
from cmp_seg_ros.scan import Float32, Scan, UInt8

# The usual names of label sources.
TRUTH, HAND, PSEUDO, TEACHER, PREDICTIONS = "truth", "hand", "pseudo", "teacher", "predictions"
IN_WORDS = {TRUTH: "the truth", HAND: "hand labels", PSEUDO: "pseudo-labels", TEACHER: "the image teacher"}


def named(source: str) -> str:
    """A label source in a sentence."""
    return IN_WORDS.get(source, source)


@dataclass(frozen=True)
class PointLabels:
    """What one source says of each point of a scan, in the scan's order.

    Args:
        space: of the ids.
        label: (N,) uint8; UNLABELLED where it says nothing.
        confidence: (N,) float32, 0..1, or None where the source gives none.
    """

    space: LabelSpace
    label: UInt8
    confidence: Float32 | None = None


@dataclass(frozen=True)
class CameraImage:
    """An image, read when it is asked for.

    Args:
        stamp: nanoseconds, by the camera's clock; 0 where it has none.
        rgb: reads it, (H, W, 3) uint8 red, green, blue. Raises UserError where it cannot be read.
        camera: its intrinsics and place, or None where they are not known.
        stored: gives the file or message that it lies in, where that may be a JPEG. Raises UserError.
    """

    stamp: int
    rgb: Callable[[], UInt8]
    camera: CalibratedCamera | None = None
    stored: Callable[[], bytes] | None = None

    def jpeg(self) -> bytes:
        """The image as JPEG: as it lies where it is one already. Raises UserError where it cannot be read."""
        content = self.stored() if self.stored is not None else b""
        return content if is_jpeg(content) else to_jpeg(self.rgb())


class Returns(NamedTuple):
    """The returns of a scan, z up, with the labels of one source."""

    xyz: Float32  # (N, 3)
    intensity: Float32  # (N,), 0 if the sensor gives none
    ring: UInt8  # (N,), 0 if unknown
    label: UInt8  # (N,)


def _nowhere(stamp: int) -> None:
    """Where no pose is known."""


@dataclass(frozen=True)
class Frame:
    """A scan and what is known with it.

    Args:
        key: its name in the data set, the same on every run.
        scan: in the lidar's frame; its times count from its stamp, whichever moment of the sweep that is.
        number: its place in the data set, from 0; gaps are frames that could not be read.
        message: the scan as a PointCloud2 with all its fields, or None where it has no others than the scan.
        labels: by name of their source.
        ring: (N,) beam of each point; by default its row in an organised scan, else None.
        images: by name of their camera, the nearest in time; a mapping that may look for them when it is asked.
        T_base_lidar: (4, 4) how the lidar is mounted, where the data set knows; its rotation makes the scan upright.
        intensity_statistics: mean and deviation of the lidar's intensities, where the data set knows.
        camera_offset: nanoseconds, added to the lidar's stamps to get the cameras' time.
        locate: gives T_world_lidar at a stamp in nanoseconds by the lidar's clock, or None where it is not known.
        sequence: scans of one sequence are by one lidar, and follow each other in time.
        group: what of the data is drawn together in intervals: a building, a stretch of a sequence.
        split: train, val, test, or nothing.
    """

    key: str
    scan: Scan
    number: int = 0
    message: Any = None
    labels: Mapping[str, PointLabels] = field(default_factory=dict)
    ring: npt.NDArray[np.integer] | None = None
    images: Mapping[str, CameraImage] = field(default_factory=dict)
    T_base_lidar: Transform | None = None
    intensity_statistics: tuple[float, float] | None = None
    camera_offset: int = 0
    locate: Callable[[int], Transform | None] = _nowhere
    sequence: str = ""
    group: str = ""
    split: str = ""

    @cached_property
    def T_world_lidar(self) -> Transform | None:
        """(4, 4) at the scan's stamp, or None."""
        return self.locate(self.scan.stamp)

    def __post_init__(self) -> None:
        rows, columns = self.scan.shape
        if self.ring is None and rows > 1:
            object.__setattr__(self, "ring", np.repeat(np.arange(rows), columns))

    def at_time_of(self, image: CameraImage) -> Float32:
        """(N, 3) the scan's points as when the image was taken, as far as stamps and the robot's way are known."""
        if not (image.stamp and self.scan.stamp):
            return self.scan.xyz
        moved = motion.at(self.scan, image.stamp - self.camera_offset, self.locate)
        return self.scan.xyz if moved is None else moved

    def returns(self, source: str = TRUTH) -> "Returns":
        """Drop missing returns and rotate by `T_base_lidar`, if it is known. Raises UserError without these labels."""
        if source not in self.labels:
            known = ", ".join(self.labels) or "none"
            raise UserError(f"frame {self.key} of {self.sequence} has no labels from {source} (it has: {known})")
        kept = self.scan.valid()
        xyz = self.scan.xyz[kept]
        if self.T_base_lidar is not None:
            xyz = xyz @ self.T_base_lidar[:3, :3].T.astype(np.float32)
        intensity = np.zeros(len(xyz), np.float32) if self.scan.intensity is None else self.scan.intensity[kept]
        ring = np.zeros(len(xyz)) if self.ring is None else self.ring[kept]
        return Returns(xyz, intensity, ring.astype(np.uint8), self.labels[source].label[kept])
