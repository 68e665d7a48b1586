"""Warnings about unusual scans, with remedies, for reports and for a node's diagnostics."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cmp_seg_ros.geometry.plausibility import doubts
from cmp_seg_ros.intensity import PLAUSIBLE
from cmp_seg_ros.scan import Labels, Scan
from cmp_seg_ros.waffleiron.config import PreprocessConfig

OUTSIDE = 0.2  # share of the returns beyond the model's field of view that gives a warning
RECENT = 10  # scans; one usual scan in a hundred is over a threshold by chance


class Remark(NamedTuple):
    """A warning about a scan.

    kind: remarks are counted by kind. serious: labels are missing or unreliable.
    """

    kind: str
    text: str
    serious: bool = False


def remarks(scan: Scan, labels: Labels, returns: int, name: str, config: PreprocessConfig) -> Iterator[Remark]:
    """Remarks that are cheap to compute.

    Args:
        returns: number of returns of the scan.
        name: of the scan, for messages.
        config: the bundle's preprocessing.
    """
    if returns == 0:
        why = f"all its {len(scan)} points are NaN, infinite or at the origin; check the sensor and its driver"
        yield Remark("no_returns", f"{name} has no return: {why}", True)
        return
    if returns <= config.neighbours:
        why = f"the network uses {config.neighbours} neighbours of each point, so these labels are unreliable"
        yield Remark("few_points", f"{name} has only {returns} returns: {why}; give whole scans", True)
    outside = 1 - np.count_nonzero(labels.confidence) / returns
    if outside > OUTSIDE:
        text = f"{name} has {outside:.0%} of its {returns} returns without a label, {_beyond(config)}"
        yield Remark("outside_view", text, serious=outside == 1)
    if scan.intensity is None or not (np.abs(scan.intensity) < PLAUSIBLE).any():
        yield Remark("no_intensity", f"{name} has no usable intensity: labels are predicted from shape alone")


class _Mostly:
    """Whether something is odd now, and was in most of the last RECENT scans."""

    def __init__(self) -> None:
        self._recent: deque[bool] = deque(maxlen=RECENT)

    def _is_mostly(self, odd: bool) -> bool:
        self._recent.append(odd)
        return odd and 2 * sum(self._recent) > len(self._recent)


class Unfamiliar(_Mostly):
    """Remarks on scans that are unlike those of the training: if most of the last are."""

    def __call__(self, labels: Labels, name: str) -> Iterator[Remark]:
        """Remarks on the next scan."""
        if self._is_mostly(bool(labels.unfamiliar)):
            yield Remark(
                "unfamiliar",
                f"{name} is unlike the scans that the model was trained on (unlikeness {labels.unlikeness:.1f}, mostly "
                f"in {labels.unfamiliar}), so its labels are unreliable: the model knows indoor scans in metres, z up, "
                "of an uncovered sensor",
            )


class StrangeIntensity(_Mostly):
    """Remarks on intensities that are unlike those of the training: if most of the last are."""

    def __call__(self, labels: Labels, name: str) -> Iterator[Remark]:
        """Remarks on the next scan."""
        if self._is_mostly(labels.strange_intensity):
            yield Remark(
                "strange_intensity",
                f"{name} has intensities unlike those that the model was trained on: labels are predicted from shape "
                "alone",
            )


def implausible(scan: Scan, labels: Labels, mount_known: bool, name: str) -> Iterator[Remark]:
    """Whether the points look like another unit than metres, or like other axes than z up.

    Args:
        mount_known: whether a calibration or TF says how the lidar is mounted.
    """
    for doubt in doubts(scan.xyz, scan.frame_id, labels.voxels, labels.voxel_size, mount_known):
        yield Remark(doubt.kind, f"{name}: {doubt.text}")


def _beyond(config: PreprocessConfig) -> str:
    view = ", ".join(
        f"{axis} {low:g}..{high:g}" for axis, low, high in zip("xyz", config.fov_min, config.fov_max, strict=True)
    )
    return f"beyond the model's field of view ({view} m); give points in metres around the lidar, z up"
