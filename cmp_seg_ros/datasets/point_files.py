"""Named columns of a file of points: .ply, .pcd, .las, .laz, and text as CloudCompare writes it."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cmp_seg_ros.datasets import pcd, ply
from cmp_seg_ros.datasets.base import Array, read_bytes
from cmp_seg_ros.errors import UserError

TEXT = (".txt", ".asc", ".xyz", ".csv", ".pts")
LAS = (".las", ".laz")
SUFFIXES = (".ply", ".pcd", *LAS, *TEXT)


def read(path: Path) -> Mapping[str, Array]:
    """The (N,) columns of a file, x, y and z among them. Raises UserError."""
    if path.suffix in LAS:
        columns = _las(path)
    elif path.suffix in TEXT:
        columns = _text(path)
    else:
        columns, _ = (ply if path.suffix == ".ply" else pcd).DataSet(path).columns()
    columns = {name.lower() if name.lower() in ("x", "y", "z") else name: values for name, values in columns.items()}
    missing = [axis for axis in "xyz" if axis not in columns]
    if missing:
        raise UserError(f"{path} has no column {', '.join(missing)}; it has: {', '.join(columns)}")
    return columns


def plain(name: str) -> str:
    """A column's name in lower case, as words joined by _, less what CloudCompare adds to it."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_").removeprefix("scalar_").removeprefix("sf_")


def _las(path: Path) -> dict[str, Array]:
    try:
        import laspy
    except ImportError:
        raise UserError(f"{path} needs laspy; pip install laspy (for .laz: laspy[lazrs])") from None
    read_bytes(path)
    try:
        file = laspy.read(path)
        columns = {axis: np.asarray(getattr(file, axis), np.float64) for axis in "xyz"}
        names = [name for name in file.point_format.dimension_names if name not in ("X", "Y", "Z")]
        return columns | {name: np.asarray(file[name]) for name in names}
    except Exception as error:  # whatever the library makes of damaged bytes
        raise UserError(f"{path} cannot be read as LAS: {error}; save it again") from error


def _text(path: Path) -> dict[str, Array]:
    """Columns of numbers, with or without a line of names before them and a line with the number of points."""
    lines = [line.strip() for line in read_bytes(path).decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line]
    names: list[str] = []
    if lines and re.match(r"(//|#|\"?[A-Za-z])", lines[0]) and not re.match(r"(nan|inf)\b", lines[0].lower()):
        names = [word.strip('"') for word in _words(lines.pop(0).lstrip("/#").strip())]
    if len(lines) > 1 and len(_words(lines[0])) == 1:  # the number of points
        lines.pop(0)
    rows = [_words(line) for line in lines]
    width = len(rows[0]) if rows else 0
    if width < 4:
        raise UserError(f"{path} has {width} columns; it must have x, y, z and a scalar field with the labels")
    try:
        table = np.array(rows, np.float64)
    except ValueError as error:
        raise UserError(f"{path} is not a table of numbers ({error}); save it again as ASCII cloud") from error
    if not names:
        names = ["x", "y", "z", *(f"column{i}" for i in range(4, width)), "label"]
    if len(names) != width:
        raise UserError(f"{path} names {len(names)} columns ({', '.join(names)}), but its lines have {width}")
    return {name: table[:, i] for i, name in enumerate(names)}


def _words(line: str) -> list[str]:
    """Values between commas, semicolons, tabs or spaces."""
    return [word for word in re.split(r"[,;\s]+", line) if word]
