"""A regular grid of voxels in the frame of a robot's base, its lidar or its camera."""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt

from cmp_seg_ros import configuration
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.scan import UNLABELLED, Bool, Float32, Int64, UInt8

FOLDER = "config/grids"
FREE = 254  # in a grid of labels: known to be empty
UNKNOWN = UNLABELLED  # in a grid of labels: outside the view, hidden, or without truth

Transform = npt.NDArray[np.float64]


class Grid(BaseModel):
    """Voxel (i, j, k) spans `origin + (i, j, k) voxel` to `origin + (i + 1, j + 1, k + 1) voxel`.

    Args:
        frame: in which it stands; `base` has its origin on the floor, x forward, z up.
        voxel: edge, metres.
        shape: number of voxels along x, y, z.
        origin: corner with the least coordinates, metres.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    frame: Literal["base", "lidar", "camera"] = "base"
    voxel: float = Field(gt=0, allow_inf_nan=False)
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    origin: tuple[FiniteFloat, FiniteFloat, FiniteFloat]

    @classmethod
    def load(cls, name_or_path: str | Path) -> "Grid":
        """A grid by its name in config/grids/, or from a YAML file. Raises UserError."""
        return configuration.load(cls, FOLDER, "grid", name_or_path)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def centres(self, rows: Int64 | None = None) -> Float32:
        """(N, 3) centres in the grid's frame of the voxels with flat indices `rows`; None: all, the last axis first."""
        cells = np.stack(np.unravel_index(np.arange(self.size) if rows is None else rows, self.shape), axis=-1)
        return (np.asarray(self.origin) + self.voxel * (cells + 0.5)).astype(np.float32)

    def seen_by(self, camera: Camera, T_grid_camera: Transform) -> tuple[Float32, Float32, Bool]:
        """(N, 3) centres of all voxels in the frame of a camera, (N, 2) their pixels, (N,) whether in its image."""
        T_camera_grid = np.linalg.inv(T_grid_camera).astype(np.float32)
        xyz = self.centres() @ T_camera_grid[:3, :3].T + T_camera_grid[:3, 3]
        return (xyz, *camera.project(xyz))

    def index(self, xyz: npt.NDArray[np.floating]) -> tuple[Int64, Bool]:
        """(N, 3) points in the grid's frame -> (N,) flat index of their voxel, 0 outside; (N,) whether inside."""
        cell = np.floor((xyz - np.asarray(self.origin)) / self.voxel).astype(np.int64)
        inside = ((cell >= 0) & (cell < self.shape)).all(axis=1)
        cell[~inside] = 0
        return np.ravel_multi_index(tuple(cell.T), self.shape), inside


def occupancy_slice(label: UInt8, grid: Grid, low: float, high: float) -> npt.NDArray[np.int8]:
    """(Y, X) int8: 100 where a column has an occupied voxel, 0 where it has only free ones, else -1.

    Args:
        label: (X, Y, Z) ids of classes, FREE or UNKNOWN.
        grid: of the labels; its z axis must point up.
        low, high: metres along z; voxels whose centre lies outside are ignored.
    """
    height = grid.origin[2] + grid.voxel * (np.arange(grid.shape[2]) + 0.5)
    layer = label[:, :, (height >= low) & (height <= high)]
    occupied = (layer < FREE).any(axis=2)
    free = (layer == FREE).any(axis=2) & ~occupied
    return np.select([occupied, free], [100, 0], -1).astype(np.int8).T
