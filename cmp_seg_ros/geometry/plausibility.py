"""Checks the unit and the axes of a scan from its points alone: `doubts` of every scan, the slow `lean` of a few."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.scan import Float32, returns

Float64 = npt.NDArray[np.float64]

SAMPLE = 4096  # points that are examined at most: every second, third, ...
MIN_RETURNS = 200  # fewer returns say nothing

# Rooms fill at least 1,500 voxels of 0.1 m, with up to 13 points each; divided by 20, at most 250 voxels.
MIN_VOXELS = 500  # of VOXEL metres
MAX_POINTS = 20  # per voxel, on average
VOXEL = 0.1
NEAR = 1.0  # metres: the median range of a scan that is scaled down is below
FAR = 60.0  # metres: the median range of an indoor scan is below
TYPICAL = (0.3, 50.0)  # metres, the median range of a scan
UNITS = {"kilometres": 1000.0, "centimetres": 0.01, "millimetres": 0.001}  # in metres

# A lidar spins about its z axis, so 90 % of the points of known lidars lie within 10 to 45 degrees of its xy plane;
# from the planes perpendicular to x and y they reach 64 degrees or more.
SPREAD = 90  # per cent of the points
NARROW, MARGIN = 55.0, 15.0  # degrees: about the spin axis the spread is below NARROW, and MARGIN less than about z

MANY = 1 << 15  # points that planes are found in; of more, every second, third, ...
LOW = 1.2  # metres from floor to ceiling; no room is lower

OPTICAL = "optical"  # in the name of a frame: x to the right, y down, z forward (REP 103)
T_BASE_OPTICAL = "[[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]"


class Doubt(NamedTuple):
    """What looks wrong: a kind, for counting, and a text with the remedy."""

    kind: str
    text: str


def doubts(xyz: Float32, frame_id: str, voxels: int, voxel_size: float, mount_known: bool) -> Iterator[Doubt]:
    """Problems with a scan's unit and axes; none for scans with too few points to tell.

    Args:
        xyz: (N, 3) points in the lidar's frame; those that are not finite, or at the origin, are not returns.
        frame_id: name of the lidar's frame.
        voxels: number of voxels of `voxel_size` metres that the network saw, 0 if none.
        mount_known: whether a calibration or TF gives the lidar's mount; its axes are then not checked.
    """
    at = np.flatnonzero(returns(xyz))
    if len(at) < MIN_RETURNS:
        return
    some = xyz[at[:: -(-len(at) // SAMPLE)]].T.astype(np.float64)
    distance = np.linalg.norm(some, axis=0)
    yield from _scale(distance, len(at), voxels, voxel_size)
    if not mount_known:
        yield from _axes(np.abs(some) / distance, frame_id)


def lean(xyz: Float32) -> list[Doubt] | None:
    """What its floor, ceiling and walls say against a scan of unknown mount; None if it shows none of them.

    Takes up to half a second.

    Args:
        xyz: (N, 3) points in the lidar's frame, taken as upright.
    """
    from cmp_seg_ros.geometry.planes import MAX_TILT, find_planes

    found = find_planes(xyz[:: max(1, -(-len(xyz) // MANY))])
    if not (found.floor or found.ceiling or found.walls):
        return None
    height = found.ceiling[0].offset - found.floor[0].offset if found.floor and found.ceiling else np.inf
    told = []
    if height < LOW:
        text = f"its ceiling is {height:.2f} m above its floor: its points look scaled down; give points in metres"
        told.append(Doubt("scale", text))
    if found.tilt() > MAX_TILT:
        text = (
            f"the lidar leans by about {found.tilt():.0f} degrees, by the floor and walls that it sees, but is taken "
            "as upright; give T_base_lidar in a calibration file"
        )
        told.append(Doubt("tilted", text))
    elif found.way_up() < 0:
        text = (
            "the lidar seems to hang upside down: the level surface above it is nearer and fuller than the one below; "
            "if it does, give T_base_lidar in a calibration file"
        )
        told.append(Doubt("upside_down", text))
    return told


def _scale(distance: Float64, points: int, voxels: int, voxel_size: float) -> Iterator[Doubt]:
    """From the distances of some of its `points` returns, in metres."""
    middle = float(np.median(distance))
    area = (voxel_size / VOXEL) ** 2
    if 0 < voxels * area < MIN_VOXELS and points > MAX_POINTS * area * voxels and middle < NEAR:
        how = f"its {points} returns fill {voxels} voxels of {voxel_size:g} m"
    elif middle > FAR:
        how = f"half of the returns are more than {middle:.0f} m away"
    else:
        return
    fitting = [unit for unit, metres in UNITS.items() if TYPICAL[0] <= middle * metres <= TYPICAL[1]]
    unit = f"they look like {' or '.join(fitting)}" if fitting else "their unit is not metres"
    yield Doubt("scale", f"{how}: {unit}; give points in metres")


def _axes(directions: Float64, frame_id: str) -> Iterator[Doubt]:
    """From (3, M) absolute components of unit vectors to some of its returns."""
    # degrees: SPREAD % of the points lie within this angle of the plane perpendicular to x, y, z
    spread = np.degrees(np.arcsin(np.minimum(np.percentile(directions, SPREAD, axis=1), 1)))
    axis = int(spread.argmin())
    if OPTICAL in frame_id.lower():
        how = f"its frame '{frame_id}' is named as a camera's, with z forward and y down"
    elif axis != 2 and spread[axis] < NARROW and spread[axis] < spread[2] - MARGIN:
        how = f"its beams turn about {'xyz'[axis]}, not z" + (", as in a camera's optical frame" if axis == 1 else "")
    else:
        return
    mount = f", for an optical frame {T_BASE_OPTICAL}" if axis == 1 or OPTICAL in frame_id.lower() else ""
    yield Doubt("axes", f"{how}, but z is taken for up; give T_base_lidar in a calibration file{mount}")
