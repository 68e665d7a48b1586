"""Point Cloud Data files of PCL: ascii, binary and binary_compressed, any fields.

Format: https://pointclouds.org/documentation/tutorials/pcd_file_format.html. Headers are taken as PCL takes them, which
no reader on PyPI does (pypcd4 demands FIELDS, SIZE, TYPE and COUNT).
"""

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros import outputs
from cmp_seg_ros.datasets.base import Array, ScanFile, ascii_records, head, read_bytes, records
from cmp_seg_ros.errors import UserError

DEFAULTS = {"TYPE": "F", "SIZE": "4", "COUNT": "1"}  # of old files that do not say
KINDS = {"F": "f", "I": "i", "U": "u"}  # of NumPy
SIZES = {"F": ("2", "4", "8"), "I": ("1", "2", "4", "8"), "U": ("1", "2", "4", "8")}  # bytes
LARGEST = 1 << 16  # values of a field
FIELDS = re.compile(rb"^[ \t]*(FIELDS|COLUMNS)[ \t]", re.MULTILINE)
OTHERS = re.compile(rb"^[ \t]*(VERSION|SIZE|TYPE|COUNT|WIDTH|HEIGHT|VIEWPOINT|POINTS|DATA)[ \t]", re.MULTILINE)
HEADER = 1 << 16  # bytes: a header may begin with long comments


class DataSet(ScanFile):
    """A .pcd file; fields keep their names, so that intensity and time are found as in a PointCloud2."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        start = head(path, HEADER)
        return start.startswith(b"# .PCD") or bool(FIELDS.search(start) and OTHERS.search(start))

    def columns(self) -> tuple[Mapping[str, Array], tuple[int, int]]:
        content = read_bytes(self.path)
        header, body = self._header(content)
        try:
            dtype = _record(header)
            height = _whole(header, "HEIGHT") if "HEIGHT" in header else 1
            width = _whole(header, "WIDTH" if "WIDTH" in header else "POINTS")
            points = _whole(header, "POINTS") if "POINTS" in header else width * height
            if not header["DATA"]:
                raise ValueError("DATA is missing; it must be ascii, binary or binary_compressed")
        except ValueError as error:
            raise UserError(
                f"the header of {self.path} is not valid: {error}; mend that line, or write the file again"
            ) from error
        encoding = header["DATA"][0].lower()
        shape = (height, width) if height * width == points else (1, points)
        if points == 0:
            raise UserError(f"{self.path} holds no points; record it again")
        if encoding == "binary":
            return records(body, dtype, points, self.path), shape
        if encoding == "ascii":
            return records(ascii_records(body, dtype, points, self.path), dtype, points, self.path), shape
        if encoding == "binary_compressed":
            return self._compressed(body, dtype, points), shape
        raise UserError(f"{self.path} has DATA {encoding}; it must be ascii, binary or binary_compressed")

    def _header(self, content: bytes) -> tuple[dict[str, list[str]], bytes]:
        header: dict[str, list[str]] = {}
        position = 0
        while "DATA" not in header:
            end = content.find(b"\n", position)
            if end < 0:
                raise UserError(f"{self.path} has no line DATA: it is cut short or no .pcd; copy it again")
            words = content[position:end].decode("ascii", "replace").split()
            if words and not words[0].startswith("#"):
                key = words[0].upper()
                header["FIELDS" if key == "COLUMNS" else key] = words[1:]
            position = end + 1
        return header, content[position:]

    def _compressed(self, body: bytes, dtype: np.dtype[Any], points: int) -> dict[str, Array]:
        """LZF over the columns one after the other."""
        if len(body) < 8:
            raise UserError(f"{self.path} is cut short: nothing follows its header; copy it again")
        packed, size = struct.unpack_from("<II", body)
        if len(body) < 8 + packed or size < points * dtype.itemsize:
            raise UserError(
                f"{self.path} is cut short: its header promises {packed} compressed bytes for {points} points, "
                f"{len(body) - 8} bytes follow; copy it again"
            )
        try:
            content = lzf_decompress(body[8 : 8 + packed], size)
        except (IndexError, ValueError) as error:
            raise UserError(
                f"{self.path} is damaged: its compressed points cannot be unpacked; copy it again"
            ) from error
        columns: dict[str, Array] = {}
        position = 0
        for name in dtype.names or ():
            column = np.dtype([(name, dtype[name])])
            columns |= records(content[position:], column, points, self.path)
            position += points * column.itemsize
        return columns


def lzf_decompress(data: bytes, size: int) -> bytes:
    """Unpack `size` bytes of LZF (Lehmann's liblzf). Raises ValueError or IndexError for damaged data."""
    out = bytearray()
    position = 0
    while position < len(data):
        control = data[position]
        position += 1
        if control < 32:  # a run of literals
            out += data[position : position + control + 1]
            position += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[position]
            position += 1
        start = len(out) - ((control & 31) << 8) - data[position] - 1
        position += 1
        length += 2
        if start < 0:
            raise ValueError("a reference before the start")
        chunk = bytes(out[start : start + length])
        while len(chunk) < length:  # a run that repeats what it is writing
            chunk += chunk
        out += chunk[:length]
    if len(out) != size:
        raise ValueError(f"{len(out)} bytes instead of {size}")
    return bytes(out)


def _record(header: dict[str, list[str]]) -> np.dtype[Any]:
    """A point as FIELDS, SIZE, TYPE and COUNT describe it. Raises ValueError."""
    if not (names := header.get("FIELDS")):
        raise ValueError("FIELDS is missing")
    described = {key: header.get(key, [default] * len(names)) for key, default in DEFAULTS.items()}
    for key, values in described.items():
        if len(values) != len(names):
            raise ValueError(f"{key} has {len(values)} values for {len(names)} FIELDS")
    fields: list[tuple[str, Any]] = []
    for name, kind, size, count in zip(_unique(names), *described.values(), strict=True):
        if kind.upper() not in KINDS:
            raise ValueError(f"TYPE {kind} of field {name} is none of {', '.join(KINDS)}")
        if size not in SIZES[kind.upper()]:
            raise ValueError(f"SIZE {size} of field {name} is none of {', '.join(SIZES[kind.upper()])}")
        if not count.isdecimal() or int(count) > LARGEST:
            raise ValueError(f"COUNT {count} of field {name} is not a number up to {LARGEST}")
        number = f"<{KINDS[kind.upper()]}{size}"
        fields.append((name, (number, (int(count),)) if int(count) > 1 else number))
    return np.dtype(fields)


def _whole(header: dict[str, list[str]], key: str) -> int:
    """The number in a line of the header. Raises ValueError."""
    given = (header.get(key) or ["missing"])[0]
    if not given.isdecimal():
        raise ValueError(f"{key} is {given}, and must be a whole number")
    return int(given)


def _unique(names: list[str]) -> list[str]:
    """Padding is named _ any number of times."""
    return [name if names.count(name) == 1 else f"{name}{i}" for i, name in enumerate(names)]


def write(path: Path, columns: Mapping[str, Array]) -> None:
    """Write (N,) columns as a binary file. Raises OSError."""
    types = [(name, values.dtype) for name, values in columns.items()]
    table = np.rec.fromarrays(list(columns.values()), dtype=types)
    kinds = {kind: name for name, kind in KINDS.items()}
    header = {
        "VERSION": "0.7",
        "FIELDS": " ".join(columns),
        "SIZE": " ".join(str(values.dtype.itemsize) for values in columns.values()),
        "TYPE": " ".join(kinds[values.dtype.kind] for values in columns.values()),
        "COUNT": " ".join("1" for _ in columns),
        "WIDTH": len(table),
        "HEIGHT": 1,
        "VIEWPOINT": "0 0 0 1 0 0 0",
        "POINTS": len(table),
        "DATA": "binary",
    }
    lines = ["# .PCD v0.7 - Point Cloud Data file format", *(f"{key} {value}" for key, value in header.items())]
    outputs.write_whole(path, "\n".join(lines).encode() + b"\n" + table.tobytes())
