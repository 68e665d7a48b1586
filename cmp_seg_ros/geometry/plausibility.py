"""Whether a scan's points may be metres around an upright lidar, judged by the points alone, at next to no cost."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.scan import Float32

LOOKED_AT = 4096  # points, at most: every second, third, ...
FEWEST = 200  # returns that tell something

# Rooms fill 1,500 voxels of 0.1 m or more, with up to 13 points in one; a twentieth of them 250 at most.
FEW_VOXELS = 500  # of VOXEL metres
CROWDED = 20  # points in one
VOXEL = 0.1
NEAR = 1.0  # metres: half of what is seen then is nearer
FAR = 60.0  # metres: half of what is seen indoors is nearer
USUAL = (0.3, 50.0)  # metres, the middle distance of the points of a scan
UNITS = {"kilometres": 1000.0, "centimetres": 0.01, "millimetres": 0.001}  # in metres

# A lidar's beams turn about its own z; the angle that they make with the plane across it is that of its rows, 10 to 45
# degrees for 90 % of the points of known lidars. From the plane across another axis they reach 64 degrees or more.
SPREAD = 90  # per cent of the points
NARROW, APART = 55.0, 15.0  # degrees: of the axis that they turn about, and less than of z

OPTICAL = "optical"  # in the name of a frame: x to the right, y down, z forward (REP 103)
T_BASE_OPTICAL = "[[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]"


class Doubt(NamedTuple):
    """What looks wrong, for counting, and in words with the remedy."""

    kind: str
    text: str


def doubts(xyz: Float32, frame_id: str, voxels: int, voxel_size: float, mount_known: bool) -> Iterator[Doubt]:
    """What looks wrong with a scan's unit and axes; nothing for scans with too few points to tell.

    Args:
        xyz: (N, 3) points in the lidar's frame; what is not finite, or at the origin, is no return.
        frame_id: name of that frame.
        voxels: that the network saw, of `voxel_size` metres; 0 where it saw none.
        mount_known: whether a calibration or TF says how the lidar is mounted: then its axes are as they say.
    """
    returns = xyz[np.isfinite(xyz).all(axis=1) & xyz.any(axis=1)]
    if len(returns) < FEWEST:
        return
    yield from _scale(returns, voxels, voxel_size)
    if not mount_known:
        yield from _axes(returns, frame_id)


def _scale(returns: Float32, voxels: int, voxel_size: float) -> Iterator[Doubt]:
    middle = float(np.median(np.linalg.norm(_some(returns), axis=1)))
    area = (voxel_size / VOXEL) ** 2
    if 0 < voxels * area < FEW_VOXELS and len(returns) > CROWDED * area * voxels and middle < NEAR:
        how = f"its {len(returns)} returns fill {voxels} voxels of {voxel_size:g} m"
    elif middle > FAR:
        how = f"half of its returns are more than {middle:.0f} m away"
    else:
        return
    fitting = [unit for unit, metres in UNITS.items() if USUAL[0] <= middle * metres <= USUAL[1]]
    unit = f"they look like {' or '.join(fitting)}" if fitting else "they are no metres"
    yield Doubt("scale", f"{how}: {unit}; give points in metres")


def _axes(returns: Float32, frame_id: str) -> Iterator[Doubt]:
    spread = _spread(returns)
    axis = int(spread.argmin())
    if OPTICAL in frame_id.lower():
        how = f"its frame '{frame_id}' is named as a camera's, with z forward and y down"
    elif axis != 2 and spread[axis] < NARROW and spread[axis] < spread[2] - APART:
        how = f"its beams turn about {'xyz'[axis]}, not z" + (", as in a camera's optical frame" if axis == 1 else "")
    else:
        return
    mount = f", for an optical frame {T_BASE_OPTICAL}" if axis == 1 or OPTICAL in frame_id.lower() else ""
    yield Doubt("axes", f"{how}, but z is taken for up; give T_base_lidar in a calibration file{mount}")


def _some(returns: Float32) -> npt.NDArray[np.float64]:
    return returns[:: -(-len(returns) // LOOKED_AT)].astype(np.float64)


def _spread(returns: Float32) -> npt.NDArray[np.float64]:
    """(3,) angle between the points and the plane across each axis, in degrees, that SPREAD % of them are within."""
    some = _some(returns)
    directions = np.abs(some) / np.linalg.norm(some, axis=1, keepdims=True)
    return np.degrees(np.arcsin(np.minimum(np.percentile(directions, SPREAD, axis=0), 1)))
