"""NumPy arrays (.npy) and KITTI's bare floats (.bin): x, y, z and, where there is a fourth column, intensity."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cmp_seg_ros.datasets.base import Array, ScanFile, head, read_bytes
from cmp_seg_ros.errors import UserError

MAGIC = b"\x93NUMPY"
NAMES = ("x", "y", "z", "intensity")
KITTI_POINT = 16  # bytes: four little-endian float32


class DataSet(ScanFile):
    """(N, 3), (N, 4), (height, width, 3 or 4), or a structured array whose fields have names."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return head(path).startswith(MAGIC) or (path.suffix == ".bin" and path.is_file())

    def columns(self) -> tuple[Mapping[str, Array], tuple[int, int]]:
        content = read_bytes(self.path)
        table = self._npy(content) if content.startswith(MAGIC) else self._kitti(content)
        if names := table.dtype.names:
            table = np.atleast_1d(table)
            shape = table.shape if table.ndim == 2 else (1, table.size)
            return {name: table[name].reshape(-1) for name in names}, shape
        if table.ndim not in (2, 3) or table.shape[-1] not in (3, 4) or table.dtype.kind not in "fiu":
            raise UserError(
                f"{self.path} is an array of {table.dtype} of shape {table.shape}; "
                "it must be numbers of shape (N, 3), or (N, 4) with intensity"
            )
        shape = table.shape[:2] if table.ndim == 3 else (1, len(table))
        table = table.reshape(-1, table.shape[-1])
        return {name: table[:, i] for i, name in enumerate(NAMES[: table.shape[1]])}, shape

    def _npy(self, content: bytes) -> Array:
        try:
            table: Array = np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise UserError(
                f"{self.path} is not a whole .npy of numbers ({error}); save it again with numpy.save"
            ) from error
        return table

    def _kitti(self, content: bytes) -> Array:
        if len(content) % KITTI_POINT:
            raise UserError(
                f"{self.path} has {len(content)} bytes, which is no multiple of {KITTI_POINT}; a .bin holds x, y, z "
                "and intensity as float32 for every point: it is cut short or of another kind"
            )
        return np.frombuffer(content, "<f4").reshape(-1, 4)
