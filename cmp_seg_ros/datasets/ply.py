"""Polygon files (.ply): the vertices, ascii or binary in either byte order; and labelled clouds as such.

Format: http://paulbourke.net/dataformats/ply/. Read by our own code: plyfile, which does it, is GPL.
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cmp_seg_ros import outputs
from cmp_seg_ros.datasets.base import Array, ScanFile, ascii_records, head, read_bytes, records
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages.point_cloud2 import INTENSITY_NAMES
from cmp_seg_ros.scan import Float32, Labels, Scan, UInt8

ORDERS = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}
KINDS = {
    "char": "b", "int8": "b", "uchar": "B", "uint8": "B", "short": "h", "int16": "h", "ushort": "H", "uint16": "H",
    "int": "i", "int32": "i", "uint": "I", "uint32": "I", "float": "f", "float32": "f", "double": "d", "float64": "d",
}  # fmt: skip
DIGITS = 20  # of the number of an element, at most
SCALAR = "scalar_"  # CloudCompare begins the names of its own fields so
UNNAMED = "Scalar_field"  # that it gives to a column without a name


class Property(NamedTuple):
    """A property of an element: its type, and for a list the type of its length, as `struct` names them."""

    name: str
    kind: str
    length: str = ""


class Element(NamedTuple):
    """The records of one kind."""

    name: str
    size: int
    properties: list[Property]

    @property
    def scalars(self) -> np.dtype[Any]:
        """A record without its lists."""
        return np.dtype([(p.name, p.kind) for p in self.properties if not p.length])

    @property
    def has_lists(self) -> bool:
        return any(p.length for p in self.properties)

    def ordered(self, order: str) -> "Element":
        """The same in a byte order."""
        kinds = [Property(p.name, order + p.kind, p.length and order + p.length) for p in self.properties]
        return self._replace(properties=kinds)


class DataSet(ScanFile):
    """A .ply file; the vertices' properties keep their names, less CloudCompare's `scalar_`. Others are passed over.

    A scalar field without a name is the intensity, where there is no other.
    """

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return head(path, 4).startswith((b"ply\n", b"ply\r"))

    def columns(self) -> tuple[Mapping[str, Array], tuple[int, int]]:
        encoding, elements, body = self._header(read_bytes(self.path))
        without_lists = self._of_lines if encoding == "ascii" else self._of_bytes
        names = [element.name for element in elements]
        if "vertex" not in names or elements[names.index("vertex")].size == 0:
            raise UserError(f"{self.path} has no vertices; give a point cloud")
        for element in elements[: names.index("vertex")]:
            _, body = without_lists(body, element)
        vertices = elements[names.index("vertex")]
        own = [p.name for p in vertices.properties if not p.length]
        if not own or len(set(own)) < len(own):
            raise self._invalid(f"its vertices have the properties {', '.join(own) or 'none'}")
        if vertices.has_lists:
            body, _ = without_lists(body, vertices)
        if encoding == "ascii":
            body = ascii_records(body, vertices.scalars, vertices.size, self.path)
        columns = records(body, vertices.scalars, vertices.size, self.path)
        named = {name.removeprefix(SCALAR): values for name, values in columns.items()} | columns
        named = {name: values for name, values in named.items() if not name.startswith(SCALAR)}
        if UNNAMED in named and not {name.lower() for name in named} & set(INTENSITY_NAMES):
            named = {"intensity" if name == UNNAMED else name: values for name, values in named.items()}
            self.notes.add(
                "a scalar field without a name is taken as intensity; rename it in CloudCompare if it is something else"
            )
        return named, (1, vertices.size)

    def _header(self, content: bytes) -> tuple[str, list[Element], bytes]:
        """Encoding, elements, and what follows the header."""
        encoding = ""
        elements: list[Element] = []
        line_end = b"\r" if content.startswith(b"ply\r") and not content.startswith(b"ply\r\n") else b"\n"
        position = 0
        while True:
            end = content.find(line_end, position)
            if end < 0:
                raise UserError(f"{self.path} has no end_header: it is cut short; copy it again")
            words = content[position:end].decode("ascii", "replace").split()
            position = end + 1
            match words:
                case ["end_header"]:
                    break
                case ["format", name, *_]:
                    encoding = name
                case ["element", name, count, *_]:
                    if not count.isdecimal() or len(count) > DIGITS:
                        raise self._invalid(f"its element {name} has the number {count}")
                    elements.append(Element(name, int(count), []))
                case ["property", *_] if not elements:
                    raise self._invalid(f"its line '{' '.join(words)}' stands before any element")
                case ["property", "list", length, kind, name, *_]:
                    elements[-1].properties.append(Property(name, self._kind(kind, name), self._kind(length, name)))
                case ["property", kind, name, *_]:
                    elements[-1].properties.append(Property(name, self._kind(kind, name)))
        if encoding not in ORDERS:
            raise self._invalid(f"its format is {encoding or 'missing'}; known are {', '.join(ORDERS)}")
        return encoding, [element.ordered(ORDERS[encoding]) for element in elements], content[position:]

    def _kind(self, kind: str, name: str) -> str:
        if kind not in KINDS:
            raise self._invalid(f"its property {name} is of the unknown type {kind}; known are {', '.join(KINDS)}")
        return KINDS[kind]

    def _invalid(self, why: str) -> UserError:
        return UserError(f"the header of {self.path} is not valid ({why}); save the file again")

    def _of_bytes(self, body: bytes, element: Element) -> tuple[bytes, bytes]:
        """The records of a binary element without their lists, and what follows them."""
        if not element.has_lists:
            size = element.size * sum(struct.calcsize(p.kind) for p in element.properties)
            return body[:size], body[size:]
        kept, position = bytearray(), 0
        steps = [(struct.calcsize(p.kind), struct.Struct(p.length) if p.length else None) for p in element.properties]
        try:
            for _ in range(element.size):
                for size, length in steps:
                    if length is None:
                        kept += body[position : position + size]
                        position += size
                    else:
                        (items,) = length.unpack_from(body, position)
                        position += length.size + max(0, int(items)) * size
        except (struct.error, ValueError, OverflowError) as error:
            raise self._cut_short(element) from error
        if position > len(body):
            raise self._cut_short(element)
        return bytes(kept), body[position:]

    def _of_lines(self, body: bytes, element: Element) -> tuple[bytes, bytes]:
        """As `_of_bytes`, for an ascii element: a line for each record."""
        if not element.properties:  # its lines are blank, and such are passed over anywhere
            return b"", body
        lines = [words for line in body.splitlines() if (words := line.split())]
        kept = []
        try:
            for words in lines[: element.size]:
                row, position = [], 0
                for _, _, length in element.properties:
                    if not length:
                        row.append(words[position])
                        position += 1
                    else:
                        position += 1 + int(words[position])
                kept.append(b" ".join(row))
        except (IndexError, ValueError) as error:
            raise UserError(
                f"{self.path} has a line of its element {element.name} that does not fit its header; save it again"
            ) from error
        return b"\n".join(kept), b"\n".join(b" ".join(words) for words in lines[element.size :])

    def _cut_short(self, element: Element) -> UserError:
        return UserError(f"{self.path} is cut short in its element {element.name}; copy it again")


def write_labelled(path: Path, scan: Scan, labels: Labels, space: LabelSpace) -> None:
    """Write a labelled scan for CloudCompare, MeshLab, Open3D: coloured vertices with `label` and `confidence`."""
    columns = coloured(scan.xyz, labels.label, space, intensity=scan.intensity)
    write(path, columns | {"confidence": labels.confidence}, space)


def coloured(xyz: Float32, label: UInt8, space: LabelSpace, **others: Array | None) -> dict[str, Array]:
    """(N,) columns of a labelled cloud: x, y, z, the others that there are, red, green, blue, and label."""
    columns: dict[str, Array] = {axis: xyz[:, i] for i, axis in enumerate("xyz")}
    columns |= {name: values for name, values in others.items() if values is not None}
    return columns | dict(zip(("red", "green", "blue"), space.palette[label].T, strict=True)) | {"label": label}


def write(path: Path, columns: Mapping[str, Array], space: LabelSpace | None = None) -> None:
    """Write (N,) columns as the properties of vertices, with the classes of `space` as comments. Raises OSError."""
    types = [(name, values.dtype) for name, values in columns.items()]
    table = np.rec.fromarrays(list(columns.values()), dtype=types)
    kinds = {"f4": "float", "f8": "double", "u1": "uchar", "u2": "ushort", "u4": "uint", "i4": "int"}
    properties = "\n".join(f"property {kinds[values.dtype.str[1:]]} {name}" for name, values in columns.items())
    classes = "".join(f"comment label {c.id} {c.name}\n" for c in (space.classes if space else ()))
    header = f"ply\nformat binary_little_endian 1.0\n{classes}element vertex {len(table)}\n{properties}\nend_header\n"
    outputs.write_whole(path, header.encode() + table.tobytes())
