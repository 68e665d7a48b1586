"""The map of a drive: each scan is moved to the world and fused; what moves is left out.

semantic_map = SemanticMap(space)
for scan, labels, motion in drive:
    semantic_map.add(scan, labels, motion)
semantic_map.still()                       # voxels of all that stays where it is
"""

from dataclasses import replace

import numpy as np

from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.mapping import moving
from cmp_seg_ros.mapping.fusion import VOXEL, Float64, VoxelMap, Voxels
from cmp_seg_ros.mapping.odometry import Motion
from cmp_seg_ros.mapping.roles import roles_of
from cmp_seg_ros.scan import UNLABELLED, Bool, Labels, Scan

EVERY = 5  # scans from one that looks for free space to the next
MIN_SCANS = 2  # that must have hit a voxel: one alone is often a mixed pixel


class SemanticMap:
    """Voxels of the places that scans have seen, with their fused labels.

    Args:
        space: of the labels.
        voxel_size: metres.
        radius: metres; places farther from the lidar are forgotten. None: nothing is.
    """

    def __init__(self, space: LabelSpace, voxel_size: float = VOXEL, radius: float | None = None) -> None:
        self.space, self.radius = space, radius
        self._roles = roles_of(space)
        self.voxels = VoxelMap(space, voxel_size)
        self.scans = 0
        self._pruned: Float64 | None = None

    def add(self, scan: Scan, labels: Labels, motion: Motion) -> None:
        """Fuse a labelled scan. Raises UserError if the map becomes too large."""
        world = motion.to_world(scan)
        distance = np.linalg.norm(scan.xyz, axis=1)
        self.voxels.add(world, labels, distance)
        if self.scans % EVERY == 0:
            moving.note_seen_through(self.voxels, scan.xyz[scan.valid()], motion.start)
        self.scans += 1
        if self.radius is None:
            return
        place = motion.start[:3, 3]  # each time that it has moved by a tenth of the radius, what is beyond is forgotten
        if self._pruned is None or np.linalg.norm(place - self._pruned) > 0.1 * self.radius:
            self._pruned = place
            self.voxels.forget(place, self.radius)

    def every(self) -> tuple[Voxels, Bool]:
        """All voxels, and which of them are left out since they move."""
        found = self.voxels.voxels()
        return found, moving.moves(found, self._roles, EVERY)

    def still(self) -> Voxels:
        """The voxels of what does not move, without those of a single scan."""
        found, moves = self.every()
        kept = ~moves & (found.scans >= min(MIN_SCANS, self.scans))
        return Voxels(*(getattr(found, name)[kept] for name in found.__dataclass_fields__))

    def labels_of(self, scan: Scan, labels: Labels, motion: Motion) -> Labels:
        """What the map says of the points of a scan; where it says nothing, the scan's own labels."""
        label, confidence = self.voxels.labels_at(motion.to_world(scan))
        own = (label == UNLABELLED) | (labels.label == UNLABELLED)
        return replace(
            labels,
            label=np.where(own, labels.label, label),
            confidence=np.where(own, labels.confidence, confidence),
            probabilities=None,
        )
