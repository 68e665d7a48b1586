"""The occupancy node on real DDS: images in, voxels, grid and rendered images out."""

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from fields import occupancy_bundle
from nav_msgs.msg import OccupancyGrid
from ros_harness import START, Robot, header
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from cmp_seg_ros.messages import images
from cmp_seg_ros.messages.point_cloud2 import decode_fields
from cmp_seg_ros.ros import diagnostics

K = [100.0, 0.0, 63.5, 0.0, 100.0, 47.5, 0.0, 0.0, 1.0]


def image(stamp=START, size=(96, 128), encoding="rgb8"):
    pixels = np.full((*size, 3) if encoding == "rgb8" else size, 128, np.uint8)
    return images.encode(pixels, encoding, header(stamp, "camera"), Image)


def info(width=128, height=96, **changes):
    return CameraInfo(header=header(START, "camera"), width=width, height=height, k=K, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("occupancy")
    occupancy_bundle(folder / "bundle")
    camera = {"model": "pinhole", "intrinsics": [100.0, 100.0, 63.5, 47.5], "width": 128, "height": 96}
    T_base_camera = [[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0.5], [0, 0, 0, 1]]
    camera |= {"T_camera_lidar": np.eye(4).tolist(), "T_base_camera": T_base_camera}
    (folder / "robot.yaml").write_text(yaml.safe_dump({"cameras": {"front": camera}}))
    return folder


@pytest.fixture
def robot(tmp_path):
    robot = Robot(tmp_path)
    yield robot
    robot.close()


def start(robot, folder, *parameters):
    arguments = [part for value in (f"model:={folder}/bundle", *parameters) for part in ("-p", value)]
    robot.start("occupancy_node", "--ros-args", *arguments)


def test_with_a_calibration_voxels_stand_on_the_floor_of_the_robot(robot, folder):
    """The bundle finds everything beyond 2 m occupied, by class 7, a seat."""
    clouds = robot.subscribe(PointCloud2, "/occupancy_node/occupied_voxels")
    grids = robot.subscribe(OccupancyGrid, "/occupancy_node/occupancy_grid")
    boxes = robot.subscribe(MarkerArray, "/occupancy_node/markers")
    reports = robot.subscribe(DiagnosticArray, "/diagnostics")
    start(robot, folder, f"calibration_file:={folder}/robot.yaml", "max_rate_hz.grid:=0.001")
    publisher = robot.publisher(Image, "/image")
    publisher.publish(image(encoding="mono8"))
    robot.until(lambda: clouds and grids and boxes, "what the node finds")
    [cloud] = clouds
    assert cloud.header.frame_id == "base_link" and cloud.header.stamp.sec * 10**9 == START
    fields = decode_fields(cloud, "x", "y", "z", "density", "rgb", "label")
    assert fields["x"].min() == pytest.approx(2.05, abs=0.06) and (fields["label"] == 7).all()
    assert (fields["density"] > 7).all() and len(boxes[0].markers[0].points) == cloud.width == len(fields["rgb"])
    cells = np.array(grids[0].data).reshape(grids[0].info.height, grids[0].info.width)
    assert cells[64, 8:18].tolist() == [0] * 10 and (cells[64, 22:40] == 100).all() and cells[0, 5] == -1
    assert grids[0].info.origin.position.y == pytest.approx(-6.4)
    publisher.publish(image(START + 1, size=(50, 60)))
    robot.until(lambda: "no calibration for images of 60 x 50" in robot.processes[0].err, "the refusal of another size")
    publisher.publish(image(START + 2))
    robot.until(lambda: len(clouds) == 2, "the next image")
    assert len(grids) == 1  # its rate is capped
    robot.until(lambda: reports[-1].status[0].level in (diagnostics.OK, diagnostics.WARN), "a report")


def test_without_one_camera_info_is_used_and_voxels_stand_before_the_camera(robot, folder):
    clouds = robot.subscribe(PointCloud2, "/occupancy_node/occupied_voxels")
    depths = robot.subscribe(Image, "/occupancy_node/depth")
    semantics = robot.subscribe(Image, "/occupancy_node/semantics")
    features = robot.subscribe(Image, "/occupancy_node/features")
    robot.subscribe(OccupancyGrid, "/occupancy_node/occupancy_grid")
    reports = robot.subscribe(DiagnosticArray, "/diagnostics")
    start(robot, folder)
    infos, publisher = robot.publisher(CameraInfo, "/camera_info"), robot.publisher(Image, "/image")
    publisher.publish(image())
    robot.until(lambda: "publish camera_info" in robot.processes[0].err, "the wish for a camera info")
    infos.publish(info(distortion_model="thin_prism", d=[0.1] * 12))
    publisher.publish(image(START + 1))
    robot.until(lambda: "distortion model 'thin_prism'" in robot.processes[0].err, "the refusal of that model")
    infos.publish(info(distortion_model="plumb_bob"))

    def found():
        publisher.publish(image(START + 2))
        return clouds and depths and semantics and features

    robot.until(found, "what the node finds")
    z = decode_fields(clouds[0], "z")["z"]
    assert clouds[0].header.frame_id == "camera" and z.min() == pytest.approx(2.05, abs=0.06)
    depth = np.frombuffer(depths[0].data, np.float32).reshape(depths[0].height, depths[0].width)
    assert depths[0].encoding == "32FC1" and np.median(depth) == pytest.approx(2, abs=0.25)
    assert np.array(semantics[0].data).reshape(-1, 3)[0].tolist() == [220, 90, 40]  # the colour of a seat
    assert features[0].encoding == "rgb8"
    level = "nobody knows what is level"
    robot.until(lambda: any(level in s.message for r in reports for s in r.status), "a word on the missing grid")
