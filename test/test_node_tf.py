"""Extrinsics from TF, over DDS; with tf2_ros where that is installed, else with a stand-in for it."""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from ros_harness import START, Graph, cloud, header, node_arguments, room
from scipy.spatial.transform import Rotation
from test_node_segmentation import offline

from cmp_seg_ros.messages import point_cloud2

INSTALLED = importlib.util.find_spec("tf2_ros") is not None


@pytest.fixture
def broadcaster(monkeypatch):
    """The class StaticTransformBroadcaster; node processes find tf2_ros, too."""
    if not INSTALLED:
        stand_ins = str(Path(__file__).parent / "stand_ins")
        monkeypatch.syspath_prepend(stand_ins)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([stand_ins, *filter(None, sys.path)]))
    from tf2_ros import StaticTransformBroadcaster

    return StaticTransformBroadcaster


def transform(rotation: Rotation) -> TransformStamped:
    """T_base_link_lidar."""
    message = TransformStamped(header=header(START, "base_link"), child_frame_id="lidar")
    for axis, value in zip("xyzw", rotation.as_quat(), strict=True):
        setattr(message.transform.rotation, axis, float(value))
    return message


def T(rotation: Rotation) -> np.ndarray:
    return np.block([[rotation.as_matrix(), np.zeros((3, 1))], [np.array([0, 0, 0, 1])]])


def labels(message) -> np.ndarray:
    return point_cloud2.decode_labels(message).label


SCAN = type(room())(room().xyz)  # no intensity, so no statistics of it


def test_scans_wait_for_tf_where_that_is_asked_for_and_follow_its_changes(broadcaster, tiny_bundle, tmp_path):
    with Graph(tmp_path, *node_arguments(tiny_bundle, extrinsics="tf", wait_for_tf=True)) as graph:
        first, second = Rotation.from_euler("x", 30, degrees=True), Rotation.from_euler("y", -40, degrees=True)
        expected = [offline(tiny_bundle, SCAN, T_base_lidar=T(rotation)).label for rotation in (first, second)]
        assert (expected[0] != expected[1]).any(), "a test that every rotation passes proves nothing"
        graph.points.publish(cloud(SCAN))
        graph.points.publish(cloud(SCAN, START + 1))
        graph.until(lambda: graph.warns("TF has no transform from lidar to base_link; holding scans"), "a warning")
        graph.until(lambda: graph.counts().get("pending") == "1", "the newest scan, which waits")
        assert not graph.labelled
        broadcast = broadcaster(graph.node)
        broadcast.sendTransform(transform(first))
        graph.until(lambda: graph.labelled, "its labels")
        assert graph.labelled[0].header == header(START + 1)
        np.testing.assert_array_equal(labels(graph.labelled[0]), expected[0])
        broadcast.sendTransform(transform(second))
        graph.until(lambda: (labels(graph.label(cloud(SCAN))) == expected[1]).all(), "labels by the new transform")
        graph.until(lambda: graph.label(cloud(SCAN)) and graph.healthy(), "health")


def test_without_tf_the_lidar_is_taken_as_upright_with_a_warning(broadcaster, tiny_bundle, tmp_path):
    with Graph(tmp_path, *node_arguments(tiny_bundle, extrinsics="tf")) as graph:
        np.testing.assert_array_equal(
            labels(graph.label(cloud(SCAN))), offline(tiny_bundle, SCAN, T_base_lidar=np.eye(4)).label
        )
        graph.until(lambda: graph.warns("TF has no transform.*taking the lidar as upright"), "a warning")
        graph.program.stop()
        assert int(graph.counts()["note.no_transform"]) == 1
