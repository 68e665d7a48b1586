"""The uses of message_filters and sensor_msgs_py, with stand-ins and with the packages where they are installed."""

import importlib
import importlib.util
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.time import Time
from ros_harness import cloud, header, room
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from test_ros_transforms import Topics, info

from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import images, point_cloud2
from cmp_seg_ros.ros import message_filters as our_filters
from cmp_seg_ros.ros.camera import CameraInput
from cmp_seg_ros.scan import Labels

FILTERS = [our_filters]
if importlib.util.find_spec("message_filters") is not None:
    import message_filters

    FILTERS.append(message_filters)
HAS_READER = importlib.util.find_spec("sensor_msgs_py") is not None
MS = 1_000_000
STAND_INS = Path(__file__).parent / "stand_ins"


@pytest.fixture
def reader(monkeypatch):
    if not HAS_READER:
        monkeypatch.syspath_prepend(str(STAND_INS))
    return importlib.import_module("sensor_msgs_py.point_cloud2")


def pairs(filters, events, queue=4, slop=0.05):
    """The pairs made of (source, milliseconds) as they come."""
    sources = [filters.SimpleFilter(), filters.SimpleFilter()]
    found = []
    synchroniser = filters.ApproximateTimeSynchronizer(sources, queue, slop)
    synchroniser.registerCallback(lambda *pair: found.append(tuple(message.number for message in pair)))
    for number, (source, milliseconds) in enumerate(events):
        stamp = Time(nanoseconds=milliseconds * MS)
        sources[source].signalMessage(SimpleNamespace(header=SimpleNamespace(stamp=stamp), number=number))
    return found


@pytest.mark.parametrize("filters", FILTERS)
def test_contract_of_the_synchroniser(filters):
    assert pairs(filters, [(0, 100), (1, 100)]) == [(0, 1)]
    assert pairs(filters, [(1, 100), (0, 100)]) == [(1, 0)], "in the order of the filters"
    assert pairs(filters, [(0, 100), (1, 140)]) == [(0, 1)]
    assert pairs(filters, [(0, 100), (1, 150)]) == [], "slop itself is too far"
    assert pairs(filters, [(0, 100), (0, 130), (1, 125)]) == [(1, 2)], "the nearest"
    assert pairs(filters, [(0, 100), (1, 100), (1, 110)]) == [(0, 1)], "each at most once"
    late = [(0, 10 * i) for i in range(9)] + [(1, 0)]
    assert pairs(filters, late, queue=4, slop=0.005) == [], "the oldest are forgotten"
    assert pairs(filters, late, queue=9, slop=0.005) == [(0, 9)]


@pytest.mark.skipif(len(FILTERS) == 1, reason="message_filters is not installed")
@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 40).map(lambda i: 10 * i)), max_size=40, unique=True))
def test_ours_pairs_as_message_filters_does(events):
    assert pairs(our_filters, events) == pairs(FILTERS[1], events)


@pytest.mark.parametrize("filters", FILTERS)
def test_an_image_goes_with_the_camera_info_of_its_own_stamp(filters, monkeypatch):
    """As where a camera zooms."""
    monkeypatch.setattr("cmp_seg_ros.ros.camera.SimpleFilter", filters.SimpleFilter)
    monkeypatch.setattr("cmp_seg_ros.ros.camera.ApproximateTimeSynchronizer", filters.ApproximateTimeSynchronizer)
    from rclpy.serialization import deserialize_message, serialize_message

    topics = Topics()
    camera = CameraInput(topics, {"sync_deadline": 0.1, "image_transport": "raw"}, None, None)
    for number in range(3):
        stamp = header(number * 100 * MS)
        image = images.encode(np.zeros((480, 640, 3), np.uint8), "rgb8", stamp, Image)
        message = deserialize_message(info(), CameraInfo)
        message.header, message.k[0] = stamp, 500.0 + number
        topics.store["image"](serialize_message(image))
        topics.store["camera_info"](serialize_message(message))
    for number in range(3):
        image = camera.match(number * 100 * MS + 1).image
        assert camera.intrinsics.of(640, 480, image.info).intrinsics[0] == 500.0 + number


@pytest.mark.parametrize("profile", ["default", "hydra", "autoware"])
def test_contract_of_the_reader_of_our_labelled_cloud(reader, profile):
    message, rng = cloud(room()), np.random.default_rng(0)
    count = message.width * message.height
    labels = Labels(rng.integers(0, 6, count).astype(np.uint8), rng.random(count).astype(np.float32))
    space = LabelSpace.load("structural6")
    labelled = point_cloud2.encode_labelled(message, labels, space, profile)
    labelled = labelled.message(message.header, PointCloud2, PointField)
    points = reader.read_points(labelled)
    assert list(points.dtype.names) == [field.name for field in labelled.fields]
    name = "class_id" if profile == "autoware" else "label"
    points = reader.read_points(labelled, field_names=["x", name])
    np.testing.assert_array_equal(points[name], labels.label)
    np.testing.assert_array_equal(points["x"], point_cloud2.decode_fields(message)["x"])


def test_contract_of_the_reader_leaves_out_points_that_are_no_number(reader):
    scan = room()
    scan.xyz[::3] = np.nan
    points = reader.read_points(cloud(scan), field_names=["x", "y"], skip_nans=True)
    assert len(points) == np.isfinite(scan.xyz[:, 0]).sum()


def test_the_example_of_the_docs_counts_people(robot, tmp_path, monkeypatch):
    """A program that reads our labelled cloud with sensor_msgs_py."""
    code = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "docs" / "node.md").read_text(), re.DOTALL)
    (program,) = (block for block in code if "sensor_msgs_py" in block)
    (tmp_path / "people.py").write_text(program)
    if not HAS_READER:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(STAND_INS), *filter(None, sys.path)]))
    message = cloud(room())
    label = np.zeros(message.width * message.height, np.uint8)
    label[:17] = LabelSpace.load("structural6").names.index("person")
    confidence = np.where(np.arange(len(label)) < 7, 0.1, 0.9).astype(np.float32)
    labelled = point_cloud2.encode_labelled(message, Labels(label, confidence), LabelSpace.load("structural6"))
    reader = robot.start(str(tmp_path / "people.py"))
    publisher = robot.publisher(PointCloud2, "/segmentation_node/labelled_points")
    publisher.publish(labelled.message(message.header, PointCloud2, PointField))
    robot.until(lambda: f"10 of {len(label)} points are people" in reader.err, "what it counts")
