"""Agreement over time: the scans of a stretch vote on the voxels of the world that they see.

A label that its voxel outvotes is rejected, and a point that no camera sees now gets the label from when one did (as in
LOSC, arXiv 2507.07605). A label that stays keeps its own confidence: that of a voxel says less of a point, since a
teacher repeats its errors.
"""

from collections.abc import Sequence

import numpy as np

from cmp_seg_ros.datasets.frame import Frame, PointLabels
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.mapping.fusion import VOXEL, VoxelMap
from cmp_seg_ros.mapping.odometry import Motion
from cmp_seg_ros.scan import UNLABELLED, Float32, Labels, UInt8


def fused(
    frames: Sequence[Frame],
    motions: Sequence[Motion],
    labels: Sequence[PointLabels],
    probabilities: Sequence[Float32],
    space: LabelSpace,
) -> list[PointLabels]:
    """The labels of each of some frames, given those of all: outvoted ones gone, and missing ones from the votes.

    Args:
        frames: of one sequence.
        motions: of the lidar during each.
        labels: of each, from its own images; points without a label do not vote.
        probabilities: (N, C) of each, of the classes of `space`.
    """
    voxels, worlds = VoxelMap(space, VOXEL, independent=1), []
    for frame, motion, own, said in zip(frames, motions, labels, probabilities, strict=True):
        xyz = motion.to_world(frame.scan)
        worlds.append(xyz)
        assert own.confidence is not None
        voted = Labels(own.label, own.confidence, probabilities=said)
        voxels.add(xyz, voted, np.linalg.norm(frame.scan.xyz, axis=1).astype(np.float32))
    return [_agreeing(own, *voxels.labels_at(xyz)) for own, xyz in zip(labels, worlds, strict=True)]


def _agreeing(own: PointLabels, label: UInt8, confidence: Float32) -> PointLabels:
    """A scan's own labels where the (N,) votes agree or where only one of the two says something."""
    assert own.confidence is not None
    missing = own.label == UNLABELLED
    outvoted = ~missing & (label != UNLABELLED) & (label != own.label)
    agreed = np.where(missing, label, own.label), np.where(missing, confidence, own.confidence)
    return PointLabels(
        own.space,
        np.where(outvoted, UNLABELLED, agreed[0]).astype(np.uint8),
        np.where(outvoted, 0, agreed[1]).astype(np.float32),
    )
