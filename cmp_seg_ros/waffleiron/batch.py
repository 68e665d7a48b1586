"""A batch of scans for the network: the points of all scans concatenated, without padding."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cmp_seg_ros.waffleiron.preprocess import Int64, VoxelInputs, Voxels, occupied_box


@dataclass  # not frozen: Lightning Fabric moves such batches to a device, but no frozen ones
class PlaneCells:
    """Cells of the points of a batch on one plane; `collate` crops them to the occupied ones and a margin.

    Args:
        index: (M,) int64, flat cell in (B, H, W).
        weight: (B H W, 1) float32, 1 / (number of points in the cell + 1e-6), as published.
        shape: (B, H, W).
    """

    index: Tensor
    weight: Tensor
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, index: Int64, shape: tuple[int, int, int]) -> "PlaneCells":
        """From (M,) flat cells in (B, H, W)."""
        count = np.bincount(index, minlength=math.prod(shape))
        weight = (1.0 / (count + 1e-6)).astype(np.float32)[:, None]
        return cls(torch.from_numpy(index), torch.from_numpy(weight), shape)


@dataclass
class Batch:
    """B scans with M voxels in all.

    Args:
        features: (M, C) float32.
        neighbours: (M, K) int64.
        planes: one PlaneCells per plane.
        sample: (M,) int64, index of the scan of each voxel.
        size: B.
    """

    features: Tensor
    neighbours: Tensor
    planes: list[PlaneCells]
    sample: Tensor
    size: int


def collate(scans: Sequence[Voxels | VoxelInputs], grids: Sequence[tuple[int, int]]) -> Batch:
    """Make a batch of scans; outputs are the same as for each scan alone (except batch statistics in training)."""
    sizes = [len(scan.features) for scan in scans]
    starts = np.cumsum([0, *sizes])
    sample = np.repeat(np.arange(len(scans)), sizes)
    neighbours = [scan.neighbours + start for scan, start in zip(scans, starts[:-1], strict=True)]
    cells = np.concatenate([scan.cells for scan in scans], axis=1)
    return Batch(
        features=torch.from_numpy(np.concatenate([scan.features for scan in scans])),
        neighbours=torch.from_numpy(np.concatenate(neighbours)),
        planes=[_crop(index, sample, len(scans), grid) for index, grid in zip(cells, grids, strict=True)],
        sample=torch.from_numpy(sample),
        size=len(scans),
    )


def _crop(index: np.ndarray, sample: np.ndarray, size: int, grid: tuple[int, int]) -> PlaneCells:
    top, left, height, width = occupied_box(index, grid)
    row, column = np.divmod(index, grid[1])
    flat = (sample * height + row - top) * width + column - left
    return PlaneCells.of(flat, (size, height, width))
