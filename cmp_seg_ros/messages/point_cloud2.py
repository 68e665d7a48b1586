"""sensor_msgs/PointCloud2 in and out, for messages of rclpy and of rosbags alike: nothing here imports ROS.

A message is anything with the fields of PointCloud2; its data may be an array.array, a NumPy array or bytes.
"""

import sys
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Bool, Float32, Labels, Scan, UInt8

Profile = Literal["default", "hydra", "autoware", "elevation_mapping"]
PROFILES: tuple[str, ...] = get_args(Profile)
WITH_PROBABILITIES = ("autoware", "elevation_mapping")  # profiles that use the probability of every class
Array = npt.NDArray[Any]

INT8, UINT8, INT16, UINT16, INT32, UINT32, FLOAT32, FLOAT64 = range(1, 9)  # sensor_msgs/PointField
TYPES = {INT8: "i1", UINT8: "u1", INT16: "i2", UINT16: "u2", INT32: "i4", UINT32: "u4", FLOAT32: "f4", FLOAT64: "f8"}
DATATYPES = {np.dtype(name): number for number, name in TYPES.items()}

# Names that drivers give to the strength of a return, best first.
INTENSITY_NAMES = ("intensity", "intensities", "i", "reflectivity", "reflectance", "signal", "remission")
# Names that drivers give to the time of a point. Whole numbers are nanoseconds (Ouster's t, Nebula's time_stamp,
# Livox's offset_time); fractions are seconds (Velodyne's time, Hesai's and RoboSense's timestamp) or what fits them
# better (Livox's timestamp: nanoseconds as float64).
TIME_NAMES = ("t", "time", "timestamp", "time_stamp", "offset_time", "time_offset", "point_time_offset", "stamp")
NATIVE = "<" if sys.byteorder == "little" else ">"
UNITS = (1.0, 1e-3, 1e-6, 1e-9)
LONGEST_SWEEP = 2.0  # seconds
YEAR_2100 = 4.1e9  # seconds since the epoch


@dataclass(frozen=True)
class Field:
    """One field of a point: a PointField as plain data."""

    name: str
    offset: int
    datatype: int
    count: int = 1

    @property
    def end(self) -> int:
        """Offset of the first byte after the field."""
        return self.offset + self.count * np.dtype(TYPES[self.datatype]).itemsize


@dataclass(frozen=True)
class Cloud:
    """A PointCloud2 without its header, as plain data; `message` makes the real one."""

    height: int
    width: int
    fields: tuple[Field, ...]
    point_step: int
    row_step: int
    is_bigendian: bool
    is_dense: bool
    data: array

    def message(self, header: Any, point_cloud2: type, point_field: type) -> Any:
        """The message, of the given classes: those of `sensor_msgs.msg` or of a rosbags type store."""
        of_rclpy = hasattr(point_cloud2, "get_fields_and_field_types")
        msg = point_cloud2(
            header=header,
            height=self.height,
            width=self.width,
            fields=[point_field(name=f.name, offset=f.offset, datatype=f.datatype, count=f.count) for f in self.fields],
            is_bigendian=self.is_bigendian,
            point_step=self.point_step,
            row_step=self.row_step,
            is_dense=self.is_dense,
            **({} if of_rclpy else {"data": np.frombuffer(self.data, np.uint8)}),
        )
        if of_rclpy:  # the constructor would copy once more
            msg.data = self.data
        return msg


def stamp_ns(header: Any) -> int:
    """The stamp of a std_msgs/Header in nanoseconds."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def _no_note(text: str) -> None:
    """Where nobody listens."""


def decode(msg: Any, with_time: bool = True, note: Callable[[str], None] = _no_note) -> Scan:
    """The scan in any PointCloud2 that has x, y and z.

    x, y, z, the intensity and the time of a point are found by name; they may have any of the eight types and stand
    in any order, with padding between them, between points and between rows, in either byte order. What a driver
    describes wrongly and is not needed is passed over: a row_step that the size of the data belies, a count or a field
    that reaches beyond the point.

    Args:
        msg: the message.
        with_time: whether the times of points are of use.
        note: takes what was passed over.

    Raises:
        UserError: the cloud is empty, lies about its size, or has no x, y, z.
    """
    layout = _Layout(msg, note)
    by_name = layout.by_name()
    missing = [axis for axis in "xyz" if axis not in by_name]
    if missing:
        raise UserError(
            f"the cloud has no field {', '.join(missing)}; its fields are {layout.names()}. "
            "Give a topic whose clouds have x, y and z"
        )
    return Scan(
        xyz=layout.xyz(),
        intensity=next((layout.column(by_name[n]) for n in INTENSITY_NAMES if n in by_name), None),
        time=next((_seconds(layout, by_name[n]) for n in TIME_NAMES if n in by_name and with_time), None),
        stamp=layout.stamp,
        frame_id=msg.header.frame_id,
        shape=layout.shape,
    )


def decode_fields(msg: Any, *names: str) -> dict[str, Array]:
    """(N,) values of each named field (without names: of all) in its own type, native byte order. Raises UserError."""
    layout = _Layout(msg)
    known = {field.name: field for field in layout.fields}
    missing = [name for name in names if name not in known]
    if missing:
        raise UserError(f"the cloud has no field {', '.join(missing)}; its fields are {layout.names()}")
    return {name: layout.column(known[name], native=True) for name in names or known}


def decode_labels(msg: Any, field: str = "label") -> Labels:
    """The labels in a labelled cloud, or those of the label space `field` in a cloud of truth. Raises UserError.

    Confidence is 1 where there is a label and the cloud has no such field.
    """
    has_confidence = field == "label" and any(f.name == "confidence" for f in msg.fields)
    values = decode_fields(msg, field, *(["confidence"] if has_confidence else []))
    label = values[field].astype(np.uint8, copy=False)
    confidence = values.get("confidence", label != UNLABELLED)
    return Labels(label=label, confidence=confidence.astype(np.float32, copy=False))


def encode(
    fields: Mapping[str, Array],
    shape: tuple[int, int],
    offsets: Mapping[str, int] | None = None,
    point_step: int = 0,
) -> Cloud:
    """A cloud from arrays of N = height * width values, each a field of its type.

    Args:
        fields: name -> (N,) array of one of the eight types of PointField.
        shape: (height, width).
        offsets: where each field stands in the point; by default one behind the other.
        point_step: bytes a point; by default no more than needed.
    """
    described, end = [], 0
    for name, values in fields.items():
        datatype = DATATYPES[values.dtype.newbyteorder("=")]
        described.append(Field(name, offsets[name] if offsets else end, datatype))
        end = described[-1].end
    step = point_step or max(field.end for field in described)
    data = array("B", [0]) * (shape[0] * shape[1] * step)
    for field in described:
        _write(data, step, field, fields[field.name])
    return Cloud(*shape, tuple(described), step, shape[1] * step, False, False, data)


def encode_labelled(
    msg: Any,
    labels: Labels,
    label_space: LabelSpace,
    profile: Profile = "default",
    entropy: bool = False,
) -> Cloud:
    """The labelled cloud of the scan in `msg`, in its order and shape.

    Profiles:
        default: the fields and bytes of `msg` unchanged, less fields named confidence, rgb or label; then, aligned to
            four, `confidence` FLOAT32, `rgb` FLOAT32 holding 0x00RRGGBB, `label` UINT8; in the byte order of `msg`.
        hydra: x, y, z, rgb, and `label` as UINT32, last (Hydra takes the last integer field named label or ring).
        autoware: x, y, z, `class_id` UINT8, `probability`, `entropy` at 12, 16 and 20 of 24 bytes.
        elevation_mapping: x, y, z, rgb and, for every class, its probability in a field of its name.

    Args:
        msg: the PointCloud2 that was labelled.
        labels: of its N points; their probabilities are needed for `elevation_mapping` and for the entropy.
        label_space: of the labels.
        entropy: whether profiles without one get a FLOAT32 field `entropy` too; before the label where that is last.
            It is Shannon's over the logarithm of the number of classes; NaN without probabilities and without a label.

    Raises:
        UserError: `msg` is malformed, the profile is unknown or needs probabilities.
        ValueError: the labels are not those of this cloud.
    """
    layout = _Layout(msg)
    count = layout.shape[0] * layout.shape[1]
    if len(labels.label) != count:
        raise ValueError(f"{len(labels.label)} labels for a cloud of {count} points")
    rgb = packed_colours(labels.label, label_space.palette)
    uncertain = {"entropy": _entropy(count, labels.probabilities)} if entropy else {}
    if profile == "default":
        added = {"confidence": labels.confidence, "rgb": rgb} | uncertain | {"label": labels.label}
        return _append(layout, added, msg.is_dense)
    xyz = layout.xyz()
    points: dict[str, Array] = {axis: xyz[:, i] for i, axis in enumerate("xyz")}
    if profile == "hydra":
        return encode(points | {"rgb": rgb} | uncertain | {"label": labels.label.astype(np.uint32)}, layout.shape)
    if profile == "autoware":
        points |= {
            "class_id": labels.label,
            "probability": labels.confidence,
            "entropy": _entropy(count, labels.probabilities),
        }
        offsets = {"x": 0, "y": 4, "z": 8, "class_id": 12, "probability": 16, "entropy": 20}
        return encode(points, layout.shape, offsets)
    if profile == "elevation_mapping":
        if (probabilities := labels.probabilities) is None:
            raise UserError(f"output profile '{profile}' needs the probability of every class, and there are none")
        channels = {c.name: probabilities[:, i] for i, c in enumerate(label_space.classes)}
        return encode(points | {"rgb": rgb} | channels | uncertain, layout.shape)
    raise UserError(f"unknown output profile '{profile}'; known: {', '.join(PROFILES)}")


def encode_chosen(msg: Any, chosen: Bool) -> Cloud:
    """The chosen points (N,) of the cloud `msg`, in its layout and order but for its shape, which is (1, n)."""
    layout = _Layout(msg)
    points = layout.points().reshape(-1, layout.point_step)[chosen]
    data = array("B")
    data.frombytes(points.data if len(points) else b"")
    size, big = points.size, layout.order == ">"
    return Cloud(1, len(points), tuple(layout.fields), layout.point_step, size, big, bool(msg.is_dense), data)


class _Layout:
    """How the points lie in the bytes of a message, checked. Raises UserError."""

    def __init__(self, msg: Any, note: Callable[[str], None] = _no_note) -> None:
        self.stamp = stamp_ns(msg.header)
        self.shape = (int(msg.height), int(msg.width))
        self.point_step = int(msg.point_step)
        self.order = ">" if msg.is_bigendian else "<"
        if 0 in self.shape:
            raise UserError(f"the cloud is empty: height {msg.height} x width {msg.width}; check the driver's output")
        self.fields = [field for described in msg.fields if (field := self._field(described, note))]
        self.bytes = np.frombuffer(msg.data, np.uint8) if len(msg.data) else np.empty(0, np.uint8)
        self.row_step = self._row_step(int(msg.row_step), note)

    def _field(self, described: Any, note: Callable[[str], None]) -> Field | None:
        """A field as it can be read, or None where it cannot and is not needed."""
        field = Field(str(described.name), int(described.offset), int(described.datatype), max(1, int(described.count)))
        if field.datatype not in TYPES:
            why = f"has the unknown datatype {field.datatype}; sensor_msgs/PointField knows 1 to 8"
        elif field.end <= self.point_step:
            return field
        elif (alone := replace(field, count=1)).end <= self.point_step:
            note(f"count of field '{field.name}' is {field.count}, more than fits a point: taken as 1")
            return alone
        else:
            why = (
                f"ends at byte {field.end} of a point, but point_step is {self.point_step}; "
                "the driver describes its points wrongly"
            )
        if field.name.lower() in ("x", "y", "z"):
            raise UserError(f"field '{field.name}' of the cloud {why}")
        note(f"field '{field.name}' of the cloud is passed over: it {why}")
        return None

    def _row_step(self, row_step: int, note: Callable[[str], None]) -> int:
        """Bytes from one row to the next: as the message says, or what the size of its data tells."""
        height, width = self.shape
        row = width * self.point_step
        size = len(self.bytes)
        unpadded = (height - 1) * row_step + row if height > 1 else height * row_step  # but for the last row
        if row_step >= row and size in (height * row_step, unpadded):
            return row_step
        if height * row <= size < height * row + row:  # less than a row is too much
            told = size // height if size % height == 0 else row
            rest = f", and {size - height * told} bytes" if size > height * told else ""
            note(
                f"row_step of the cloud is {row_step}, but its data are rows of {told} bytes{rest} (width {width} x "
                f"point_step {self.point_step} = {row})"
            )
            return told
        raise UserError(
            f"data of the cloud has {len(self.bytes)} bytes, but height {height} x width {width} x point_step "
            f"{self.point_step} = {height * row} (row_step says {row_step}); the message is cut short or the driver "
            "describes its clouds wrongly"
        )

    def names(self) -> str:
        return ", ".join(field.name for field in self.fields) or "none"

    def by_name(self) -> dict[str, Field]:
        """Fields by name in lower case; the exact spelling wins."""
        return {f.name.lower(): f for f in self.fields} | {f.name: f for f in self.fields}

    def view(self, field: Field, columns: int = 1) -> Array:
        """(height, width, columns) view of the field and its like neighbours, in the message's bytes."""
        kind = np.dtype(self.order + TYPES[field.datatype])
        strides = (self.row_step, self.point_step, kind.itemsize)
        return np.ndarray((*self.shape, columns), kind, self.bytes.data, field.offset, strides)

    def column(self, field: Field, native: bool = False) -> Array:
        """(N,) values of the field as float32, or in its own type."""
        values = self.view(field).reshape(-1)
        with np.errstate(over="ignore"):  # a float64 out of range becomes infinite: no return
            return values.astype(values.dtype.newbyteorder("=") if native else np.float32, copy=False)

    def xyz(self) -> Float32:
        """(N, 3)."""
        x, y, z = (self.by_name()[axis] for axis in "xyz")
        if (x.datatype, y.datatype, z.datatype) == (FLOAT32,) * 3 and (y.offset, z.offset) == (x.end, y.end):
            if self.order == NATIVE:  # as one item: moving numbers one by one takes three times as long
                strides = (self.row_step, self.point_step)
                whole = np.ndarray(self.shape, "V12", self.bytes.data, x.offset, strides)
                return np.ascontiguousarray(whole.reshape(-1)).view(np.float32).reshape(-1, 3)
            return self.view(x, 3).reshape(-1, 3).astype(np.float32, copy=False)
        return np.stack([self.column(field) for field in (x, y, z)], axis=1)

    def points(self) -> UInt8:
        """(height, width, point_step) view of the bytes of every point."""
        return np.ndarray(
            (*self.shape, self.point_step), np.uint8, self.bytes.data, 0, (self.row_step, self.point_step, 1)
        )


def _seconds(layout: _Layout, field: Field) -> Float32:
    """(N,) times of the points in seconds from the scan's stamp.

    The unit of fractions is the largest in which the sweep is short and lies in this century. Times since another epoch
    than the stamp's (a sensor with its own clock) count from the first point.
    """
    values = layout.column(field, native=True)
    wide = values.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    if not len(finite):
        return np.zeros(len(wide), np.float32)
    low, high = finite.min(), finite.max()
    units = UNITS if values.dtype.kind == "f" else UNITS[-1:]
    fits = (u for u in units if (high - low) * u <= LONGEST_SWEEP and high * u < YEAR_2100)
    unit = next(fits, units[-1])
    if max(abs(low), abs(high)) * unit <= LONGEST_SWEEP:  # relative already
        return (wide * unit).astype(np.float32)
    origin = layout.stamp * 1e-9 / unit
    if abs(low - origin) * unit > LONGEST_SWEEP:
        origin = low
    return ((wide - origin) * unit).astype(np.float32)


def _write(data: array, step: int, field: Field, values: Array, order: str = "<") -> None:
    """Put (N,) values into the field of N points of `step` bytes."""
    kind = np.dtype(order + TYPES[field.datatype])
    np.ndarray((len(values),), kind, memoryview(data), field.offset, (step,))[...] = values


def _append(layout: _Layout, added: Mapping[str, Array], is_dense: bool) -> Cloud:
    """The message's points with further fields behind, aligned to four."""
    kept = [field for field in layout.fields if field.name not in added]
    dropped = len(kept) < len(layout.fields)
    base = max((field.end for field in kept), default=0) if dropped else layout.point_step
    end = _align(base)
    fields = []
    for name, values in added.items():
        fields.append(Field(name, end, DATATYPES[values.dtype]))
        end = fields[-1].end
    step = _align(end)
    height, width = layout.shape
    data = array("B", [0]) * (height * width * step)
    # Moving a point as one item is several times faster than moving its bytes.
    target = np.ndarray((height, width), f"V{base}", memoryview(data), 0, (width * step, step))
    target[...] = np.ndarray((height, width), f"V{base}", layout.bytes.data, 0, (layout.row_step, layout.point_step))
    for field in fields:
        _write(data, step, field, added[field.name], layout.order)
    return Cloud(height, width, (*kept, *fields), step, width * step, layout.order == ">", bool(is_dense), data)


def _align(offset: int) -> int:
    return -(-offset // 4) * 4


def packed_colours(label: UInt8, palette: UInt8) -> Float32:
    """(N,) the colour of each label, packed; 0 where unlabelled."""
    colours = packed(palette)
    colours[UNLABELLED] = 0
    return colours[label]


def packed(rgb: UInt8) -> Float32:
    """(N, 3) colours -> (N,) float32 whose bits are 0x00RRGGBB, as PCL has them."""
    red, green, blue = rgb.astype(np.uint32).T
    return (red << 16 | green << 8 | blue).view(np.float32)


def _entropy(count: int, probabilities: Float32 | None) -> Float32:
    """(N,) Shannon entropy over the logarithm of the number of classes, 0..1; NaN where not known."""
    if probabilities is None:
        return np.full(count, np.nan, np.float32)
    p = np.asarray(probabilities, np.float64)
    entropy = -np.sum(p * np.log(np.maximum(p, sys.float_info.min)), axis=1) / np.log(max(2, p.shape[1]))
    return np.where(p.any(axis=1), entropy, np.nan).astype(np.float32)
