"""Files of labelled grids."""

from io import BytesIO
from pathlib import Path

import numpy as np

from cmp_seg_ros import outputs
from cmp_seg_ros.datasets import ply
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.occupancy.grid import FREE, Grid
from cmp_seg_ros.scan import Float32, UInt8


def write_npz(path: Path, grid: Grid, label: UInt8, density: Float32, space: LabelSpace) -> None:
    """label (X, Y, Z) uint8 (254 free, 255 unknown), density float16, origin, voxel, frame, names and ids."""
    content = BytesIO()
    np.savez_compressed(
        content,
        label=label,
        density=density.astype(np.float16),
        origin=np.array(grid.origin),
        voxel=grid.voxel,
        frame=grid.frame,
        names=np.array(space.names),
        ids=space.ids,
    )
    outputs.write_whole(path, content.getbuffer())


def write_ply(path: Path, grid: Grid, label: UInt8, density: Float32, space: LabelSpace) -> None:
    """Centres of the occupied voxels with colour, label and density, as binary PLY."""
    rows = np.flatnonzero(label.ravel() < FREE)
    ids = label.ravel()[rows]
    columns = dict(zip("xyz", grid.centres(rows).T, strict=True))
    colours = dict(zip(("red", "green", "blue"), space.palette[ids].T, strict=True))
    ply.write(path, {**columns, **colours, "label": ids, "density": density.ravel()[rows]})


def write_depth(path: Path, depth: Float32) -> None:
    """Metres as a 16-bit PNG of millimetres; 0 where there is none."""
    from PIL import Image

    millimetres = np.where(np.isfinite(depth), depth * 1000, 0).clip(0, 65535).astype(np.uint16)
    content = BytesIO()
    Image.fromarray(millimetres).save(content, "png")
    outputs.write_whole(path, content.getbuffer())
