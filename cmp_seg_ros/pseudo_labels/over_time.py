"""Agreement over time: the scans of a stretch vote on the voxels of the world that they see.

A point that no camera sees now gets its label from when one did (labels consolidated over time, as in LOSC,
arXiv 2507.07605).
"""

from collections.abc import Sequence

import numpy as np

from cmp_seg_ros.datasets.frame import Frame, PointLabels
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.mapping.fusion import VOXEL, VoxelMap
from cmp_seg_ros.mapping.odometry import Motion
from cmp_seg_ros.scan import Float32, Labels


def fused(
    frames: Sequence[Frame],
    motions: Sequence[Motion],
    labels: Sequence[PointLabels],
    probabilities: Sequence[Float32],
    space: LabelSpace,
    voxel_size: float = VOXEL,
) -> list[PointLabels]:
    """The labels of each of some frames, given those of all.

    Args:
        frames: of one sequence.
        motions: of the lidar during each.
        labels: of each, from its own images; points without a label do not vote.
        probabilities: (N, C) of each, of the classes of `space`.
        voxel_size: metres.
    """
    voxels, worlds = VoxelMap(space, voxel_size), []
    for frame, motion, own, said in zip(frames, motions, labels, probabilities, strict=True):
        xyz = motion.to_world(frame.scan)
        worlds.append(xyz)
        assert own.confidence is not None
        voted = Labels(own.label, own.confidence, probabilities=said)
        voxels.add(xyz, voted, np.linalg.norm(frame.scan.xyz, axis=1).astype(np.float32))
    return [PointLabels(space, *voxels.labels_at(xyz)) for xyz in worlds]
