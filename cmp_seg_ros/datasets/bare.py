"""Bare numbers (.bin): which columns they are, as a user says it or as the numbers themselves tell."""

import numpy as np

from cmp_seg_ros.datasets.base import Array
from cmp_seg_ros.errors import UserError

KITTI = "x,y,z,i"  # each a little-endian float32, as all of these unless they say otherwise
LAYOUTS = {
    KITTI: "x, y, z and intensity as float32, as KITTI has them",
    "x,y,z": "x, y and z alone as float32",
    "x,y,z,i,r": "x, y, z, intensity and ring as float32, as nuScenes has them",
    "x,y,z,i,_,_": "six float32 a point",
    "x,y,z,i,_,_,_": "seven float32 a point",
    "x:f8,y:f8,z:f8,i:f8": "x, y, z and intensity as float64",
    "x:f8,y:f8,z:f8": "x, y and z as float64",
    "x:f8,y:f8,z:f8,i:f8,r:f8": "x, y, z, intensity and ring as float64",
    "x,y,z,i,r:u2": "x, y, z and intensity as float32 and a ring as uint16",
    "x,y,z,i,r:u2,t": "x, y, z and intensity as float32, a ring as uint16 and a time as float32",
}
RINGED = "x,y,z,i,r"
NAMES = {"i": "intensity", "r": "ring", "t": "time"}
TYPES = ("f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4")

SAMPLE = 1 << 18  # bytes, from the start, that the numbers are judged by
FEWEST = 64  # numbers that tell something
DOUBT = 8  # over the root of the number of numbers: by what share chance may make a layout smoother, five sigma
SAME = 0.08  # mean difference in rank of columns that hold the same
SMALL, LARGE = 1e-7, 1e7  # what coordinates, intensities, rings and times lie between, or are 0
MOST = 0.98  # of the numbers that do so where they are read as what they are
RINGS = 256


def parse(columns: str) -> np.dtype[np.void]:
    """A record from names separated by commas, each with a type behind a colon where it is not float32.

    x, y, z, i (intensity), r (ring), t (time), _ (passed over), or any other name. Raises UserError.
    """
    fields: list[tuple[str, str]] = []
    for number, column in enumerate(columns.split(",")):
        name, _, kind = (part.strip() for part in column.partition(":"))
        if not name or (kind or "f4") not in TYPES:
            raise UserError(
                f"--columns {columns}: '{column}' must be a name, or name:type with one of {', '.join(TYPES)}"
            )
        fields.append((f"_{number}" if name == "_" else NAMES.get(name, name), f"<{kind or 'f4'}"))
    names = [name for name, _ in fields]
    if missing := [axis for axis in "xyz" if axis not in names]:
        raise UserError(f"--columns {columns} lacks {', '.join(missing)}; say e.g. --columns x,y,z,i,r")
    if len(set(names)) < len(names):
        raise UserError(f"--columns {columns} names a column twice; pass over columns with _")
    return np.dtype(fields)


def likeliest(content: bytes) -> str:
    """The layout that the numbers look like: one of LAYOUTS, and KITTI unless another is clearly better.

    Read as what they are, numbers are of a plausible size, and each column goes on smoothly from point to point, or at
    least differs less from itself than from the others.
    """
    roughness, doubt = {}, 0.0
    for layout in LAYOUTS:
        record = parse(layout)
        table = _table(content[: min(SAMPLE, len(content)) // record.itemsize * record.itemsize], record)
        if table.size < FEWEST:
            return KITTI
        if _plausible(table):
            roughness[layout] = _roughness(table)
            doubt = max(doubt, DOUBT / table.size**0.5)
    likely = min(roughness, key=roughness.__getitem__, default=KITTI)
    clearly = 1 if likely == RINGED and _ends_with_rings(content) else 1 - doubt
    return likely if roughness.get(likely, np.inf) < clearly * roughness.get(KITTI, np.inf) else KITTI


def _table(content: bytes, record: np.dtype[np.void]) -> Array:
    """(N, columns) float64."""
    points = np.frombuffer(content, record)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.stack([points[name].astype(np.float64) for name in record.names or ()], axis=1)


def _plausible(table: Array) -> bool:
    """Whether next to all numbers have a size that they may have, no axis is all 0, and six are not twice three."""
    size = np.abs(table)
    usual = ~(size > LARGE) & ((size >= SMALL) | (size == 0) | np.isnan(size))
    if usual.mean() < MOST or (table[:, :2] == 0).mean(axis=0).max() > MOST:
        return False
    if table.shape[1] != 6:
        return True
    first, second = np.split(np.sort(_ranks(table), axis=0), 2, axis=1)
    return bool(np.abs(first - second).mean() > SAME)


def _ranks(table: Array) -> Array:
    """(N, columns) where each number stands among all, 0..1."""
    ranks: Array = np.searchsorted(np.sort(table, axis=None), table) / table.size
    return ranks


def _roughness(table: Array) -> float:
    """How far a number is from that of the next point, in ranks: 0 for a constant, 1/3 for noise."""
    return float(np.abs(np.diff(_ranks(table), axis=0)).mean())


def _ends_with_rings(content: bytes) -> bool:
    """Whether the fifth of five float32 are small whole numbers, and not all the same."""
    record = parse(RINGED)
    last = np.frombuffer(content, record, len(content) // record.itemsize)["ring"]
    whole = (last >= 0) & (last < RINGS) & (last == np.floor(last))
    return bool(whole.all() and np.ptp(last) > 0)
