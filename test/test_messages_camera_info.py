"""CameraInfo to camera models, and what is said where that cannot be."""

from types import SimpleNamespace

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.messages import camera_info

K = [500.0, 0, 320, 0, 510, 240, 0, 0, 1]


def info(**changes):
    return CameraInfo(**({"width": 640, "height": 480, "k": K, "distortion_model": "plumb_bob"} | changes))


@pytest.mark.parametrize(
    ("model", "d", "kind", "count"),
    [
        ("plumb_bob", [], "pinhole", 0),
        ("", [], "pinhole", 0),
        ("plumb_bob", [0.1, -0.05, 0.001, 0.002, 0.01], "pinhole", 5),
        ("plumb_bob", [0.0] * 5, "pinhole", 0),
        ("rational_polynomial", [0.1, 0, 0, 0, 0, 0, 0, 0], "pinhole", 5),
        ("equidistant", [0.01, 0.002, 0, 0], "equidistant", 4),
        ("fisheye", [0.01, 0.002, 0, 0], "equidistant", 4),
    ],
)
def test_known_models(model, d, kind, count):
    camera = camera_info.decode(info(distortion_model=model, d=d))
    assert (camera.model, camera.intrinsics, len(camera.distortion)) == (kind, (500, 510, 320, 240), count)
    assert (camera.width, camera.height) == (640, 480)
    uv, inside = camera.project(np.array([[0.0, 0, 2]], np.float32))
    np.testing.assert_allclose(uv[0], [320, 240], atol=1e-4)
    assert inside.all()


def test_field_names_of_ros_1():
    msg = SimpleNamespace(width=640, height=480, K=np.array(K), D=np.zeros(5), distortion_model="plumb_bob")
    assert camera_info.decode(msg).intrinsics == (500, 510, 320, 240)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"k": [0.0] * 9}, r"not calibrated \(K is zero\).*calibration file"),
        ({"distortion_model": "rational_polynomial", "d": [0.1] * 8}, r"'rational_polynomial'.*8 coefficients"),
        ({"distortion_model": "mirror"}, r"'mirror'.*plumb_bob.*calibration file"),
        ({"width": 0}, r"is not valid \(width"),
        ({"k": [-500.0, *K[1:]]}, r"is not valid"),
    ],
)
def test_what_cannot_be_is_named(changes, error):
    with pytest.raises(UserError, match=error):
        camera_info.decode(info(**changes))
