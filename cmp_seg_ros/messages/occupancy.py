"""Labelled grids as messages: a cloud of occupied voxels, boxes, a slice from above. Nothing here imports ROS."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages.point_cloud2 import Cloud, encode, packed_colours
from cmp_seg_ros.occupancy.grid import FREE, Grid
from cmp_seg_ros.scan import Float32, UInt8

CUBES = 6  # type of a visualization_msgs/Marker


def cloud(grid: Grid, label: UInt8, density: Float32, space: LabelSpace) -> Cloud:
    """Centres of the occupied voxels: x, y, z, density, rgb as float32, label as uint8 last."""
    rows = np.flatnonzero(label.ravel() < FREE)
    xyz, ids = grid.centres()[rows], label.ravel()[rows]
    fields: dict[str, npt.NDArray[Any]] = {"x": xyz[:, 0], "y": xyz[:, 1], "z": xyz[:, 2]}
    fields |= {"density": density.ravel()[rows], "rgb": packed_colours(ids, space.palette), "label": ids}
    offsets = {"x": 0, "y": 4, "z": 8, "density": 12, "rgb": 16, "label": 20}
    return encode(fields, (1, len(rows)), offsets, point_step=24)


def boxes(grid: Grid, label: UInt8, space: LabelSpace, header: Any, kinds: dict[str, type]) -> Any:
    """A MarkerArray with one list of cubes; `kinds` are the classes MarkerArray, Marker, Point and ColorRGBA."""
    rows = np.flatnonzero(label.ravel() < FREE)
    marker = kinds["Marker"](header=header, ns="occupancy", id=0, type=CUBES, action=0)
    marker.scale.x = marker.scale.y = marker.scale.z = grid.voxel
    marker.pose.orientation.w = 1.0
    colours = [kinds["ColorRGBA"](r=r / 255, g=g / 255, b=b / 255, a=1.0) for r, g, b in space.palette.tolist()]
    marker.points = [kinds["Point"](x=x, y=y, z=z) for x, y, z in grid.centres()[rows].astype(float).tolist()]
    marker.colors = [colours[i] for i in label.ravel()[rows].tolist()]
    return kinds["MarkerArray"](markers=[marker])


def flat(grid: Grid, label: UInt8, low: float, high: float) -> npt.NDArray[np.int8]:
    """(Y, X) what stands between two heights: 100 occupied, 0 free, -1 unknown; of a grid whose z axis points up.

    A cell is free where at least half of its voxels are seen to be free and none is occupied.
    """
    z = grid.origin[2] + grid.voxel * (np.arange(grid.shape[2]) + 0.5)
    layers = label[:, :, (z > low) & (z < high)]
    found = np.full(layers.shape[:2], -1, np.int8)
    if layers.shape[2]:
        found[(layers == FREE).mean(axis=2) >= 0.5] = 0
        found[(layers < FREE).any(axis=2)] = 100
    return found.T.copy()
