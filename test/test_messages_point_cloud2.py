"""The PointCloud2 codec: any layout in, the labelled cloud out, clear errors for malformed clouds."""

from array import array
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import point_cloud2
from cmp_seg_ros.messages.point_cloud2 import FLOAT32, TYPES, UINT8, UINT32, Cloud, Field
from cmp_seg_ros.scan import UNLABELLED, Labels

STAMP = 1_700_000_000_250_000_000
SPACE = LabelSpace.load("structural6")


def header(stamp=STAMP):
    time = SimpleNamespace(sec=stamp // 1_000_000_000, nanosec=stamp % 1_000_000_000)
    return SimpleNamespace(stamp=time, frame_id="lidar")


def as_message(cloud: Cloud, stamp=STAMP, **changes):
    fields = [SimpleNamespace(**vars(field)) for field in cloud.fields]
    return SimpleNamespace(**(vars(cloud) | {"header": header(stamp), "fields": fields} | changes))


def simple_cloud(count=5, shape=None, **extra):
    values = np.arange(count, dtype=np.float32)
    points = {"x": values + 1, "y": values + 2, "z": values + 3} | extra
    return as_message(point_cloud2.encode(points, shape or (1, count)))


def labels_for(count, rng):
    label = rng.choice(np.array([0, 1, 2, 3, 4, 5, UNLABELLED], np.uint8), count)
    confidence = np.where(label == UNLABELLED, 0, rng.random(count)).astype(np.float32)
    return Labels(label, confidence)


@st.composite
def layouts(draw):
    """A cloud with x, y, z, and other fields, of any type, order, padding and byte order, and the values in it."""
    height, width = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    others = draw(st.lists(st.sampled_from(["intensity", "ring", "label", "rgb", "confidence", "a", "b"]), unique=True))
    names = draw(st.permutations(["x", "y", "z", *others]))
    order = ">" if draw(st.booleans()) else "<"
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    offset, fields, values = 0, [], {}
    for name in names:
        datatype = draw(st.sampled_from(list(TYPES)))
        offset += draw(st.integers(0, 5))
        fields.append(Field(name, offset, datatype))
        offset = fields[-1].end
        values[name] = rng.integers(0, 100, (height, width)).astype(TYPES[datatype])
    step = offset + draw(st.integers(0, 9))
    row_step = step * width + draw(st.integers(0, 11))
    data = rng.integers(0, 256, height * row_step, dtype=np.uint8)  # padding holds garbage
    for field in fields:
        kind = np.dtype(order + TYPES[field.datatype])
        np.ndarray((height, width), kind, data.data, field.offset, (row_step, step))[...] = values[field.name]
    container = draw(st.sampled_from([lambda d: array("B", d.tobytes()), lambda d: d, bytes]))
    cloud = Cloud(height, width, tuple(fields), step, row_step, order == ">", True, container(data))
    return as_message(cloud), values


@settings(max_examples=150)
@given(layouts())
def test_any_layout_decodes(case):
    msg, values = case
    scan = point_cloud2.decode(msg)
    assert scan.shape == (msg.height, msg.width)
    assert (scan.stamp, scan.frame_id) == (STAMP, "lidar")
    for axis, name in enumerate("xyz"):
        np.testing.assert_array_equal(scan.xyz[:, axis], values[name].reshape(-1).astype(np.float32))
    if "intensity" in values:
        np.testing.assert_array_equal(scan.intensity, values["intensity"].reshape(-1).astype(np.float32))
    else:
        assert scan.intensity is None
    fields = point_cloud2.decode_fields(msg)
    for name, expected in values.items():
        assert fields[name].dtype == expected.dtype
        np.testing.assert_array_equal(fields[name], expected.reshape(-1))


@settings(max_examples=150)
@given(layouts(), st.integers(0, 2**32 - 1))
def test_labelled_cloud_keeps_the_input_and_adds_the_labels(case, seed):
    msg, values = case
    labels = labels_for(msg.height * msg.width, np.random.default_rng(seed))
    out = point_cloud2.encode_labelled(msg, labels, SPACE)

    assert (out.height, out.width, out.is_bigendian) == (msg.height, msg.width, msg.is_bigendian)
    assert out.point_step % 4 == 0 and out.row_step == out.width * out.point_step
    kept = [(f.name, f.offset, f.datatype) for f in msg.fields if f.name not in ("confidence", "rgb", "label")]
    assert [(f.name, f.offset, f.datatype) for f in out.fields[:-3]] == kept
    base = out.fields[-3].offset
    assert base % 4 == 0
    assert [(f.name, f.offset, f.datatype) for f in out.fields[-3:]] == [
        ("confidence", base, FLOAT32),
        ("rgb", base + 4, FLOAT32),
        ("label", base + 8, UINT8),
    ]
    if not {"confidence", "rgb", "label"} & set(values):
        rows = np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.row_step)[:, : msg.width * msg.point_step]
        points = np.frombuffer(out.data, np.uint8).reshape(-1, out.point_step)
        np.testing.assert_array_equal(points[:, : msg.point_step], rows.reshape(-1, msg.point_step))

    back = point_cloud2.decode_labels(as_message(out))
    np.testing.assert_array_equal(back.label, labels.label)
    np.testing.assert_array_equal(back.confidence, labels.confidence)
    fields = point_cloud2.decode_fields(as_message(out))
    for name in [name for name, *_ in kept]:
        np.testing.assert_array_equal(fields[name], values[name].reshape(-1))
    colours = fields["rgb"].view(np.uint32)
    expected = SPACE.palette[labels.label].astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    np.testing.assert_array_equal(colours, np.where(labels.label == UNLABELLED, 0, expected))

    again = point_cloud2.encode_labelled(as_message(out), labels, SPACE)  # labelling twice does not grow the cloud
    assert again.point_step <= out.point_step
    assert [f.name for f in again.fields] == [f.name for f in out.fields]


def test_truth_clouds_hold_only_labels():
    ids = np.array([0, 3, UNLABELLED, 5], np.uint8)
    msg = as_message(point_cloud2.encode({"structural6": ids, "indoor": ids}, (2, 2)))
    truth = point_cloud2.decode_labels(msg, "structural6")
    np.testing.assert_array_equal(truth.label, ids)
    np.testing.assert_array_equal(truth.confidence, [1, 1, 0, 1])
    with pytest.raises(UserError, match=r"no field label.*structural6, indoor"):
        point_cloud2.decode_labels(msg)


@pytest.mark.parametrize("name", ["intensity", "I", "reflectivity", "signal"])
def test_intensity_goes_by_many_names(name):
    scan = point_cloud2.decode(simple_cloud(3, **{name: np.array([5, 6, 7], np.uint16)}))
    np.testing.assert_array_equal(scan.intensity, [5, 6, 7])


EPOCH = STAMP * 1e-9


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("t", np.array([0, 5e7, 9.9e7], np.uint32)),  # Ouster: ns from the start
        ("t", np.array([0, 1000, 2000], np.uint32)),  # the same, a sliver of a sweep
        ("time", np.array([0, 0.05, 0.099], np.float32)),  # Velodyne: s
        ("time", np.array([-0.099, -0.05, 0], np.float32)),  # stamped at the end of the sweep
        ("timestamp", EPOCH + np.array([0, 0.05, 0.099])),  # Hesai: s since the epoch
        ("timestamp", STAMP + np.array([0, 5e7, 9.9e7])),  # Livox: ns since the epoch, as float64
        ("timestamp", 12.5e9 + np.array([0, 5e7, 9.9e7])),  # Livox without clock: ns since power-up
        ("time_stamp", np.array([0, 50e3, 99e3], np.float32)),  # us
    ],
)
def test_point_times_are_seconds_from_the_stamp(name, values):
    scan = point_cloud2.decode(simple_cloud(3, **{name: values}))
    if name == "time" and values[0] < 0:
        expected = [-0.099, -0.05, 0]
    elif values[-1] == 2000:
        expected = [0, 1e-6, 2e-6]
    else:
        expected = [0, 0.05, 0.099]
    np.testing.assert_allclose(scan.time, expected, atol=1e-6)


def test_organised_cloud_with_no_returns_keeps_its_shape():
    nothing = np.full(6, np.nan, np.float32)
    scan = point_cloud2.decode(as_message(point_cloud2.encode({"x": nothing, "y": nothing, "z": nothing}, (2, 3))))
    assert scan.shape == (2, 3) and not scan.valid().any()


def test_coordinates_out_of_range_of_float32_are_no_returns():
    far = np.array([1e300, 1.0])
    scan = point_cloud2.decode(as_message(point_cloud2.encode({"x": far, "y": far, "z": far}, (1, 2))))
    assert scan.valid().tolist() == [False, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 0, "width": 0, "data": b""}, r"empty: height 0 x width 0"),
        ({"width": 0}, r"empty: height 1 x width 0"),
        (
            {"row_step": 59, "data": bytes(59)},
            r"data of the cloud has 59 bytes, but height 1 x width 5 x point_step 12",
        ),
        ({"row_step": 1000, "data": bytes(130)}, r"data of the cloud has 130 bytes.*= 60 \(row_step says 1000\)"),
        ({"data": b""}, r"has 0 bytes.*= 60"),
        ({"fields": []}, r"no field x, y, z; its fields are none"),
        ({"point_step": 8, "row_step": 40, "data": bytes(40)}, r"field 'z'.*byte 12.*point_step is 8"),
        ({"fields": [SimpleNamespace(name="x", offset=0, datatype=99, count=1)]}, r"'x'.*unknown datatype 99"),
        ({"fields": [SimpleNamespace(name="x", offset=0, datatype=7, count=1)]}, r"no field y, z; its fields are x"),
    ],
)
def test_malformed_clouds_are_named(changes, message):
    msg = simple_cloud(5)
    for name, value in changes.items():
        setattr(msg, name, value)
    with pytest.raises(UserError, match=message):
        point_cloud2.decode(msg)


def test_profiles_for_other_readers():
    rng = np.random.default_rng(5)
    msg = simple_cloud(6, ring=np.arange(6, dtype=np.uint16))
    probabilities = np.zeros((6, 6), np.float32)
    probabilities[:3] = 1 / 6  # no idea at all
    probabilities[3, 2] = 1.0  # certain
    unknown = labels_for(6, rng)
    labels = replace(unknown, probabilities=probabilities)
    xyz = point_cloud2.decode(msg).xyz

    hydra = point_cloud2.encode_labelled(msg, unknown, SPACE, "hydra")
    assert [(f.name, f.datatype) for f in hydra.fields][-1] == ("label", UINT32)
    assert "ring" not in [f.name for f in hydra.fields]

    autoware = point_cloud2.encode_labelled(msg, labels, SPACE, "autoware")
    assert autoware.point_step == 24
    assert [f.offset for f in autoware.fields] == [0, 4, 8, 12, 16, 20]
    assert [f.name for f in autoware.fields] == ["x", "y", "z", "class_id", "probability", "entropy"]
    entropy = point_cloud2.decode_fields(as_message(autoware), "entropy")["entropy"]
    np.testing.assert_allclose(entropy[:4], [1, 1, 1, 0], atol=1e-6)
    assert np.isnan(entropy[4:]).all()

    elevation = point_cloud2.encode_labelled(msg, labels, SPACE, "elevation_mapping")
    channels = point_cloud2.decode_fields(as_message(elevation), *SPACE.names)
    np.testing.assert_array_equal(np.stack([channels[n] for n in SPACE.names], axis=1), probabilities)

    for cloud in (hydra, autoware, elevation):
        np.testing.assert_array_equal(point_cloud2.decode(as_message(cloud)).xyz, xyz)
    with pytest.raises(UserError, match="needs the probability"):
        point_cloud2.encode_labelled(msg, unknown, SPACE, "elevation_mapping")
    with pytest.raises(UserError, match="unknown output profile 'x'"):
        point_cloud2.encode_labelled(msg, labels, SPACE, "x")


def test_labels_of_another_cloud_are_refused():
    with pytest.raises(ValueError, match="3 labels for a cloud of 5 points"):
        point_cloud2.encode_labelled(simple_cloud(5), labels_for(3, np.random.default_rng(0)), SPACE)
