"""What a calibration file is refused for, in words that mend it."""

from pathlib import Path

import pytest

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import Calibration

CAMERA_INFO = """
image_width: 640
image_height: 480
camera_name: narrow
camera_matrix: {rows: 3, cols: 3, data: [525.0, 0, 319.5, 0, 526.0, 239.5, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 4, data: [0.05, -0.1, 0.001, 0.0]}
"""
MESSAGE = """
width: 640
height: 480
distortion_model: plumb_bob
D: [0.05, -0.1, 0.001, 0.0]
K: [525.0, 0, 319.5, 0, 526.0, 239.5, 0, 0, 1]
"""
LIDAR = "lidars: {{top: {{T_base_lidar: [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], {}}}}}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "camera: {}",
            r"robot\.yaml is not valid: there is no field 'camera'; did you mean 'cameras'\? The fields",
        ),
        ("cameras: {left: {T_camera_lidr: []}}", r"cameras.left: there is no field .*; did you mean 'T_camera_lidar'"),
        ("lidars: {top: {height: 1}}", r"lidars.top: there is no field 'height'. The fields are T_base_lidar, stamp"),
        (LIDAR.format("intensity_mean: 7.0"), "give both of intensity_mean and intensity_std"),
        (LIDAR.format("intensity_mean: 7.0, intensity_std: 0.0"), "lidars.top.intensity_std"),
        (LIDAR.format("intensity_mean: .nan, intensity_std: 1.0"), "lidars.top.intensity_mean"),
        (LIDAR.format("time_offset: .nan"), "lidars.top.time_offset"),
        (LIDAR.format("stamp: end"), "stamp: end needs sweep, the seconds of one turn"),
        (LIDAR.format("stamp: noon"), "lidars.top.stamp"),
    ],
)
def test_misspelt_fields_and_wrong_values(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "robot.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        Calibration.load(tmp_path / "robot.yaml")


@pytest.mark.parametrize(("text", "name"), [(CAMERA_INFO, "narrow"), (MESSAGE, "front")])
def test_a_camera_info_is_rewritten(text: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"camera_info\.yaml of ROS, .*add T_camera_lidar") as error:
        Calibration.load(path)
    advice = str(error.value).split("write instead: ")[1]
    path.write_text(advice)
    with pytest.raises(UserError, match="T_camera_lidar"):  # it is not guessed
        Calibration.load(path)
    for letters in ("r, r, r, x", "r, r, r, y", "r, r, r, z"):
        advice = advice.replace(letters, {"x": "1, 0, 0, 2", "y": "0, 1, 0, 0", "z": "0, 0, 1, 0"}[letters[-1]])
    path.write_text(advice)
    camera = Calibration.load(path).camera(name)
    assert camera.intrinsics == (525, 526, 319.5, 239.5) and camera.distortion == [0.05, -0.1, 0.001, 0]
    assert (camera.width, camera.height, camera.T_camera_lidar[0][3]) == (640, 480, 2)
