"""Bare numbers (.bin): their columns, as the user gives them or as the numbers themselves suggest."""

import string

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
    "x,y,z,_,i,_,_,_": "x, y, z and intensity as PCL has them in memory, eight float32 a point",
    "x,y,z,i,_,_,_,_": "eight float32 a point",
    "x:f8,y:f8,z:f8,i:f8": "x, y, z and intensity as float64",
    "x:f8,y:f8,z:f8": "x, y and z as float64",
    "x:f8,y:f8,z:f8,i:f8,r:f8": "x, y, z, intensity and ring as float64",
    "x:f8,y:f8,z:f8,i:f8,_:f8,_:f8": "six float64 a point",
    "x,y,z,i:u1": "x, y and z as float32 and an intensity as uint8",
    "x,y,z,i:u1,r:u1": "x, y and z as float32, an intensity and a ring as uint8",
    "x,y,z,i,r:u2": "x, y, z and intensity as float32 and a ring as uint16",
    "x,y,z,i,r:u2,t": "x, y, z and intensity as float32, a ring as uint16 and a time as float32",
    "x,y,z,i,t:u4,r:u2,_:u2": "x, y, z and intensity as float32, a time as uint32, a ring and padding as uint16",
}
RINGED = "x,y,z,i,r"
PCL = "x,y,z,_,i,_,_,_"
TIMED = "x,y,z,i,t:u4,r:u2,_:u2"
NAMES = {"i": "intensity", "r": "ring", "t": "time"}
TYPES = ("f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4")

SAMPLE = 1 << 18  # bytes, from the start, that the numbers are judged by
FEWEST = 64  # numbers that tell something
DOUBT = 8  # over the root of the number of numbers: by what share chance may make a layout smoother, five sigma
SAME = 0.08  # mean difference in rank of columns that hold the same
SMALL, LARGE = 1e-7, 1e7  # what coordinates, intensities, rings and times lie between, or are 0
NANOSECONDS = 1e9  # of a sweep in whole numbers, at most
MOST = 0.98  # of the numbers that do so where they are read as what they are
TINY, HUGE = 1e-30, 1e9  # less than a coordinate is off zero by rounding, more than one on Earth in any unit
STRANGE = 0.1  # of the coordinates along an axis that are so: it is no scan
RINGS = 256
TEXT = string.printable.encode()


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
    """The layout that fits the numbers best: one of LAYOUTS, KITTI unless another is clearly better, or "" for none.

    Read as what they are, numbers are of a plausible size, and each column goes on smoothly from point to point, or at
    least differs less from itself than from the others. Layouts whose points fill the content go before others.
    """
    roughness, doubt, kitti_possible = {}, 0.0, True
    for layout in LAYOUTS:
        record = parse(layout)
        table = _table(content[: min(SAMPLE, len(content)) // record.itemsize * record.itemsize], record)
        if table.size < FEWEST:
            return KITTI
        if layout == KITTI:
            kitti_possible = not _is_no_scan(table)  # else the benefit of the doubt
        if _plausible(layout, table):
            roughness[layout] = _roughness(table)
            doubt = max(doubt, DOUBT / table.size**0.5)
    filling = {layout: rough for layout, rough in roughness.items() if len(content) % parse(layout).itemsize == 0}
    for rough in (filling, roughness):
        likely = min(rough, key=rough.__getitem__, default=KITTI)
        clearly = 1 if likely == RINGED and _ends_with_rings(content) else 1 - doubt
        if rough.get(likely, np.inf) < clearly * roughness.get(KITTI, np.inf):
            return likely
    return KITTI if kitti_possible else ""


def is_text(content: bytes) -> bool:
    """Whether all of its start can be printed; False where there is too little to tell."""
    return len(content) >= 4 * FEWEST and not content[:SAMPLE].strip(TEXT)


def _table(content: bytes, record: np.dtype[np.void]) -> Array:
    """(N, columns) float64."""
    points = np.frombuffer(content, record)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.stack([points[name].astype(np.float64) for name in record.names or ()], axis=1)


def _plausible(layout: str, table: Array) -> bool:
    """Whether almost all numbers have a plausible size, no axis is all 0, and a point is not two."""
    record = parse(layout)
    size = np.abs(table)
    large = [LARGE if record[name].kind == "f" else NANOSECONDS for name in record.names or ()]
    usual = ~(size > large) & ((size >= SMALL) | (size == 0) | np.isnan(size))
    if usual.mean() < MOST or (table[:, :2] == 0).mean(axis=0).max() > MOST:
        return False
    if layout == TIMED and not table[:, 4:6].any():  # six float32 with zeros behind
        return False
    if layout == PCL and not ((table[:, 3] == 1).all() and (table[:, 5:] == 0).all()):
        return False
    if table.shape[1] == 8:
        return _is_one_of_eight(table)
    if table.shape[1] != 6:
        return True
    first, second = np.split(np.sort(_ranks(table), axis=0), 2, axis=1)
    return bool(np.abs(first - second).mean() > SAME)


def _is_no_scan(table: Array) -> bool:
    """Whether x or y cannot be coordinates: whole numbers are tiny if read as float32, bytes out of order of any size.

    Zeros and numbers that are not finite say nothing, nor does a single huge number that stands for no return.
    """
    for axis in table[:, :2].T:
        size = np.abs(axis[np.isfinite(axis) & (axis != 0)])
        _, counts = np.unique(size[size > HUGE], return_counts=True)
        if np.sum(size < TINY) + counts.sum() - counts.max(initial=0) > STRANGE * len(size):
            return True
    return False


def _is_one_of_eight(table: Array) -> bool:
    """Whether eight numbers are one point, not two of KITTI.

    Then a ring, a time or padding stands where the second's x or y would be: whole numbers, as the first's are not.
    """

    def whole(column: Array) -> bool:
        known = column[np.isfinite(column)]
        return bool((known == np.floor(known)).all())

    x, y, _, _, fifth, sixth, *_ = table.T
    no_return = not (fifth.any() or sixth.any())  # each second point is none
    return (whole(fifth) or whole(sixth)) and not (whole(x) or whole(y) or no_return)


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
