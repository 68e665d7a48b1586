"""NumPy arrays (.npy) and bare numbers (.bin): x, y, z and, where there is a fourth column, intensity."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cmp_seg_ros.datasets import bare
from cmp_seg_ros.datasets.base import Array, ScanFile, head, read_bytes, read_npy
from cmp_seg_ros.errors import UserError

MAGIC = b"\x93NUMPY"
NAMES = ("x", "y", "z", "intensity")


class DataSet(ScanFile):
    """(N, 3), (N, 4), (height, width, 3 or 4), or a structured array whose fields have names; a .bin as KITTI has it.

    With `columns` (see `bare.parse`) any number of columns. A .bin that looks otherwise than it is said to is refused.
    """

    has_columns = True

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return head(path).startswith(MAGIC) or (path.suffix == ".bin" and path.is_file())

    def columns(self) -> tuple[Mapping[str, Array], tuple[int, int]]:
        table = read_npy(self.path) if head(self.path).startswith(MAGIC) else self._bare(read_bytes(self.path))
        if names := table.dtype.names:
            table = np.atleast_1d(table)
            shape = table.shape if table.ndim == 2 else (1, table.size)
            return {name: table[name].reshape(-1) for name in names if not name.startswith("_")}, shape
        given = bare.parse(self.columns_given).names if self.columns_given else None
        names, widths = (given, (len(given),)) if given else (NAMES, (3, 4))
        if table.ndim not in (2, 3) or table.shape[-1] not in widths or table.dtype.kind not in "fiu":
            raise UserError(
                f"{self.path} is an array of {table.dtype} of shape {table.shape}; it must be numbers of shape (N, 3), "
                "(N, 4) with intensity, or (N, columns) with --columns, e.g. x,y,z,i,r"
            )
        shape = table.shape[:2] if table.ndim == 3 else (1, len(table))
        table = table.reshape(-1, table.shape[-1])
        kept = {name: table[:, i] for i, name in enumerate(names[: table.shape[1]]) if not name.startswith("_")}
        return kept, shape

    def _bare(self, content: bytes) -> Array:
        if not self.columns_given and bare.is_text(content):
            raise UserError(f"{self.path} is text, not bare numbers; load it with numpy.loadtxt and save it as .npy")
        layout = self.columns_given or bare.likeliest(content)
        if not layout:
            raise UserError(
                f"no known layout fits {self.path}: read as KITTI's x, y, z and intensity, its numbers are no "
                "coordinates; give their layout with --columns, e.g. x,y,z,i,r:u2, or save them in metres as float32, "
                "in a .npy, .pcd or .ply"
            )
        record = bare.parse(layout)
        if len(content) % record.itemsize:
            said = f"--columns {layout} takes" if self.columns_given else "KITTI's x, y, z and intensity take"
            if layout != bare.KITTI and not self.columns_given:
                said = f"its likeliest layout ({bare.LAYOUTS[layout]}) takes"
            raise UserError(
                f"{self.path} has {len(content)} bytes, which is no multiple of the {record.itemsize} that {said} a "
                "point: it is cut short, or of another layout; say which with --columns, e.g. x,y,z,i,r"
            )
        if layout != bare.KITTI and not self.columns_given:
            raise UserError(
                f"{self.path} looks like {bare.LAYOUTS[layout]}, not like KITTI's x, y, z and intensity; say so with "
                f"--columns {layout}, or give --columns {bare.KITTI} if it is KITTI's layout after all"
            )
        return np.frombuffer(content, record)
