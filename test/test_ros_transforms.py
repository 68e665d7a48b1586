"""Extrinsics from TF, and from the calibration file, and what is said without either."""

import sys
import threading
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import CalibratedCamera, Calibration
from cmp_seg_ros.messages.transforms import matrix
from cmp_seg_ros.ros.camera import CameraInput
from cmp_seg_ros.ros.sensors import Sensors
from cmp_seg_ros.ros.transforms import TfExtrinsics
from cmp_seg_ros.scan import Scan

K = [500.0, 0, 320, 0, 510, 240, 0, 0, 1]


def transform(rotation: Rotation, translation=(1.0, 2.0, 3.0)):
    quaternion = dict(zip("xyzw", rotation.as_quat(), strict=True))
    return SimpleNamespace(
        rotation=SimpleNamespace(**quaternion),
        translation=SimpleNamespace(**dict(zip("xyz", translation, strict=True))),
    )


@given(st.integers(0, 2**32 - 1))
def test_matrix_of_a_transform(seed):
    rotation = Rotation.random(random_state=seed)
    T = matrix(transform(rotation))
    np.testing.assert_allclose(T[:3, :3], rotation.as_matrix(), atol=1e-12)
    np.testing.assert_array_equal(T[:, 3], [1, 2, 3, 1])


class Missing(Exception):
    pass


class Buffer:
    """What we use of tf2_ros.Buffer."""

    def __init__(self):
        self.known = {}

    def lookup_transform(self, target, source, _time):
        if (target, source) not in self.known:
            raise Missing
        return SimpleNamespace(transform=self.known[target, source])


@pytest.fixture
def tf(monkeypatch):
    """Our lookups, over a stand-in for tf2_ros where that is not installed."""
    stand_in = ModuleType("tf2_ros")
    stand_in.Buffer, stand_in.TransformException = Buffer, Missing
    stand_in.TransformListener = lambda buffer, node: (buffer, node)
    monkeypatch.setitem(sys.modules, "tf2_ros", stand_in)
    return TfExtrinsics(SimpleNamespace())


def test_without_tf2_ros_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    with pytest.raises(UserError, match=r"needs tf2_ros.*calibration_file"):
        TfExtrinsics(SimpleNamespace())


def calibrated(**changes):
    given = {"model": "pinhole", "intrinsics": (9, 9, 5, 5), "width": 10, "height": 10}
    return CalibratedCamera(**(given | {"T_camera_lidar": np.eye(4).tolist()} | changes))


def info(**changes):
    given = {"width": 640, "height": 480, "k": K, "distortion_model": "plumb_bob"}
    return serialize_message(CameraInfo(**(given | changes)))


class Topics:
    """The inputs of a node, which a test fills by hand."""

    def __init__(self):
        self.store, self.changed = {}, threading.Condition()

    def add(self, message, name, store, depth=1):
        self.store[name] = store


def camera_input(calibrated, tf):
    topics = Topics()
    return CameraInput(topics, {"sync_deadline": 0.1, "image_transport": "raw"}, calibrated, tf), topics.store


def test_a_camera_nobody_knows():
    camera, _ = camera_input(None, None)
    with pytest.raises(UserError, match="where the camera sits is not known"):
        camera.T_camera_lidar("camera", "lidar")


def test_the_calibration_file_comes_first():
    camera, store = camera_input(calibrated(), None)
    store["camera_info"](info())
    assert camera.intrinsics.of(10, 10).intrinsics == (9, 9, 5, 5)
    np.testing.assert_array_equal(camera.T_camera_lidar("camera", "lidar"), np.eye(4))
    assert camera.intrinsics.of(640, 480).intrinsics == (500, 510, 320, 240), "for other sizes the camera info"


@pytest.mark.parametrize("extrinsics", ["file", "tf", "none"])
def test_the_file_tells_of_intensities_and_clocks_wherever_poses_come_from(tf, tmp_path, extrinsics):
    lidar = {"T_base_lidar": np.diag([1.0, -1, -1, 1]).tolist(), "time_offset": 1.0}
    lidar |= {"intensity_mean": 7.0, "intensity_std": 2.0}
    camera = calibrated(T_camera_lidar=np.diag([-1.0, -1, 1, 1]).tolist())
    Calibration(lidars={"os1": lidar}, cameras={"front": camera}).save(tmp_path / "robot.yaml")
    given = {"calibration_file": str(tmp_path / "robot.yaml"), "extrinsics": extrinsics, "base_frame": "base_link"}
    given |= {"lidar_name": "", "camera_name": "", "sync_deadline": 0.1, "image_transport": "raw"}
    sensors = Sensors(SimpleNamespace(), given)
    arguments = sensors.for_segmenter()
    assert arguments["intensity_mean"] == 7
    assert sensors.camera_stamp(Scan(np.zeros((1, 3)), stamp=5)) == 1_000_000_005
    assert (arguments["T_base_lidar"] is not None) == (extrinsics == "file")
    assert sensors.unknown == (extrinsics == "none")
    camera = sensors.camera_input(Topics())
    if extrinsics == "tf":
        sensors._tf._buffer.known["camera", "lidar"] = transform(Rotation.identity())
        np.testing.assert_array_equal(camera.T_camera_lidar("camera", "lidar")[:3, 3], [1, 2, 3])
        assert camera.intrinsics.of(10, 10).intrinsics == (9, 9, 5, 5)
    if extrinsics == "none":
        with pytest.raises(UserError, match="where the camera sits is not known"):
            camera.T_camera_lidar("camera", "lidar")


def test_intrinsics_that_do_not_fit(tf):
    camera, store = camera_input(None, tf)
    with pytest.raises(UserError, match="no calibration for images of 640 x 480"):
        camera.intrinsics.of(640, 480)
    store["camera_info"](info(k=[0.0] * 9))
    with pytest.raises(UserError, match="K is zero"):
        camera.intrinsics.of(640, 480)
    store["camera_info"](info())
    with pytest.raises(UserError, match="for 640 x 480 pixels, the image has 320 x 240"):
        camera.intrinsics.of(320, 240)
    with pytest.raises(UserError, match="TF has no transform from lidar to camera"):
        camera.T_camera_lidar("camera", "lidar")
