"""What moves: people by their label, and whatever a ray of a later or earlier scan passes through.

As in Pfreundschuh et al. 2021 (Dynamic Object Aware LiDAR SLAM, ICRA), a place that was occupied and is also seen free
was occupied by something that moves. Floors and ceilings are exempt: flat rays graze them.
"""

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.geometry.calibration import Transform
from cmp_seg_ros.kernels import fusion as kernels
from cmp_seg_ros.mapping.fusion import VoxelMap, Voxels
from cmp_seg_ros.mapping.roles import FLOOR, MOVING, OVERHEAD
from cmp_seg_ros.scan import Bool, Float32, UInt8

ROWS, COLUMNS = 360, 1024  # directions of a sphere: half a degree, a third of a degree
NEAR, FAR = 0.7, 10.0  # metres; farther off, rays are too far apart to say much
MISS = 0.03  # metres: greatest distance between a ray and the place
MARGIN = 0.3  # metres by which the ray must go on
RATIO = 1.0  # scans that see through a voxel for each scan that hits it: more, and it moved


def note_seen_through(voxels: VoxelMap, xyz: Float32, T_world_lidar: Transform) -> None:
    """Count, for each voxel, whether a scan sees through it.

    Args:
        xyz: (N, 3) returns of the scan in the lidar's frame.
        T_world_lidar: (4, 4).
    """
    image = kernels.range_image(xyz, ROWS, COLUMNS)
    T = np.linalg.inv(T_world_lidar)
    passed = kernels.seen_through(voxels.places(), T[:3, :3], T[:3, 3], image, xyz, NEAR, FAR, MISS, MARGIN)
    voxels.note_through(passed)


def moves(found: Voxels, roles: UInt8, every: int) -> Bool:
    """(M,) whether each voxel is left out of the map.

    Args:
        roles: (256,) of the ids, see `roles_of`.
        every: only one in so many scans was given to `note_seen_through`.
    """
    role = roles[found.label]
    through = found.through.astype(np.float32) * every > RATIO * found.scans
    left_out: npt.NDArray[np.bool_] = (role == MOVING) | (through & (role != FLOOR) & (role != OVERHEAD))
    return left_out
