"""Polygon files (.ply): the vertices, ascii or binary in either byte order; and labelled clouds as such."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros.datasets.base import Array, ScanFile, ascii_records, head, read_bytes, records
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import Labels, Scan

ORDERS = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}
KINDS = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip


class DataSet(ScanFile):
    """A .ply file; its vertices' properties keep their names. Faces are passed over."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return head(path, 4).startswith((b"ply\n", b"ply\r"))

    def columns(self) -> tuple[Mapping[str, Array], tuple[int, int]]:
        content = read_bytes(self.path)
        mark = content.find(b"end_header")
        end = content.find(b"\n", mark)
        if mark < 0 or end < 0:
            raise UserError(f"{self.path} has no end_header: it is cut short; copy it again")
        encoding, dtype, points = self._header(content[:mark].decode("ascii", "replace").splitlines())
        if points == 0:
            raise UserError(f"{self.path} has no vertices; give a point cloud")
        body = content[end + 1 :]
        if encoding == "ascii":
            body = ascii_records(body, dtype, points, self.path)
        return records(body, dtype, points, self.path), (1, points)

    def _header(self, lines: list[str]) -> tuple[str, np.dtype[Any], int]:
        encoding, points, element = "", 0, ""
        properties: list[tuple[str, str]] = []
        try:
            for words in (line.split() for line in lines):
                if words[:1] == ["format"]:
                    encoding = words[1]
                elif words[:1] == ["element"]:
                    if element == "" and words[1] != "vertex":
                        raise UserError(f"{self.path} does not begin with its vertices; save it again as a point cloud")
                    element = words[1]
                    points = int(words[2]) if element == "vertex" else points
                elif words[:1] == ["property"] and element == "vertex":
                    properties.append((words[2], ORDERS[encoding] + KINDS[words[1]]))
            if encoding not in ORDERS:
                raise KeyError(encoding)
            if points < 0 or not properties:
                raise ValueError(f"{points} vertices with {len(properties)} properties")
            return encoding, np.dtype(properties), points
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(f"the header of {self.path} is not valid ({error!r}); save the file again") from error


def write_labelled(path: Path, scan: Scan, labels: Labels, space: LabelSpace) -> None:
    """Write a labelled scan for CloudCompare, MeshLab, Open3D: coloured vertices with `label` and `confidence`."""
    columns: dict[str, Array] = {axis: scan.xyz[:, i] for i, axis in enumerate("xyz")}
    if scan.intensity is not None:
        columns["intensity"] = scan.intensity
    columns |= dict(zip(("red", "green", "blue"), space.palette[labels.label].T, strict=True))
    columns |= {"label": labels.label, "confidence": labels.confidence}
    names = {"f4": "float", "u1": "uchar"}
    table = np.zeros(len(scan), [(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        table[name] = values
    properties = "\n".join(f"property {names[values.dtype.str[1:]]} {name}" for name, values in columns.items())
    classes = "\n".join(f"comment label {c.id} {c.name}" for c in space.classes)
    header = f"ply\nformat binary_little_endian 1.0\n{classes}\nelement vertex {len(scan)}\n{properties}\nend_header\n"
    path.write_bytes(header.encode() + table.tobytes())
