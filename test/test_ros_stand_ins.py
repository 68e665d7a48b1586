"""The use of sensor_msgs_py, with a stand-in and with the package where it is installed."""

import importlib
import importlib.util
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from ros_harness import cloud, room
from sensor_msgs.msg import PointCloud2, PointField

from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import point_cloud2
from cmp_seg_ros.scan import Labels

HAS_READER = importlib.util.find_spec("sensor_msgs_py") is not None
STAND_INS = Path(__file__).parent / "stand_ins"


@pytest.fixture
def reader(monkeypatch):
    if not HAS_READER:
        monkeypatch.syspath_prepend(str(STAND_INS))
    return importlib.import_module("sensor_msgs_py.point_cloud2")


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
