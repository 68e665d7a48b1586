"""A lidar scan and its labels: input and output of the segmentation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

UNLABELLED = 255  # the id of "no label" in every label space

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]
Arrays = Mapping[str, npt.NDArray[Any]]  # by name


@dataclass(frozen=True)
class Scan:
    """One sweep of a lidar, in the order of its message.

    Args:
        xyz: (N, 3) float32, metres, in the lidar's frame; NaN, infinity or (0, 0, 0) mean "no return".
        intensity: (N,) float32 in the sensor's own scale, or None if the sensor has none.
        time: (N,) float32, seconds from `stamp`, or None.
        stamp: nanoseconds.
        frame_id: name of the frame of `xyz`.
        shape: (height, width) with height * width = N; (1, N) for a cloud that is not organised.

    Raises:
        ValueError: shapes do not fit each other.
    """

    xyz: Float32
    intensity: Float32 | None = None
    time: Float32 | None = None
    stamp: int = 0
    frame_id: str = ""
    shape: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        xyz = np.ascontiguousarray(self.xyz, dtype=np.float32)
        if xyz.ndim != 2 or xyz.shape[1] != 3:
            raise ValueError(f"xyz must be (N, 3), not {np.shape(self.xyz)}")
        object.__setattr__(self, "xyz", xyz)
        for name in ("intensity", "time"):
            value = getattr(self, name)
            if value is None:
                continue
            value = np.ascontiguousarray(value, dtype=np.float32)
            if value.shape != (len(xyz),):
                raise ValueError(f"{name} must be ({len(xyz)},) like xyz, not {value.shape}")
            object.__setattr__(self, name, value)
        if self.shape == (0, 0):
            object.__setattr__(self, "shape", (1, len(xyz)))
        if self.shape[0] * self.shape[1] != len(xyz):
            raise ValueError(f"shape {self.shape} does not hold {len(xyz)} points")

    def __len__(self) -> int:
        return len(self.xyz)

    def valid(self) -> Bool:
        """(N,) true where the point is a return: finite, and not at the sensor's origin. Read-only."""
        return self._valid

    @cached_property
    def _valid(self) -> Bool:
        found = returns(self.xyz)
        found.flags.writeable = False
        return found


def returns(xyz: npt.NDArray[np.floating[Any]]) -> Bool:
    """(N,) true where a point of (N, 3) is a return: finite, and not at the sensor's origin."""
    x, y, z = xyz.T  # by columns: numpy is slow along rows of three
    found: Bool = np.isfinite(x) & np.isfinite(y) & np.isfinite(z) & ((x != 0) | (y != 0) | (z != 0))
    return found


@dataclass(frozen=True)
class Labels:
    """Predicted label of each of the N points of a scan, in the scan's order.

    Args:
        label: (N,) uint8 ids of the label space; UNLABELLED for points without a return, or outside the view.
        confidence: (N,) float32 probability of that label, 0..1; 0 where unlabelled.
        voxels: number of voxels given to the network.
        voxel_size: metres.
        stages_ms: milliseconds by stage.
        unlikeness: distance of the scan from the training scans, about 1 for those; None if the bundle does not
            estimate it. Above the bundle's `familiarity.threshold` the scan is out of distribution.
        unfamiliar: if that is above, what the scan is least usual in; else empty.
        intensity_unlikeness: evidence that its intensities are not like those of the training; None without
            intensities, or if the bundle does not estimate it.
        strange_intensity: whether that is above the bundle's `intensities.threshold`: then the labels are those of the
            scan without intensity.
        probabilities: (N, C) float32 probability of every class of the label space, 0 where unlabelled; or None.
    """

    label: UInt8
    confidence: Float32
    voxels: int = 0
    voxel_size: float = 0.0
    stages_ms: dict[str, float] = field(default_factory=dict)
    probabilities: Float32 | None = None
    unlikeness: float | None = None
    unfamiliar: str = ""
    intensity_unlikeness: float | None = None
    strange_intensity: bool = False
