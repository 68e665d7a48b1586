"""The occupancy node over DDS: images and camera info in, voxels, grid and pictures out."""

import numpy as np
import pytest
import yaml
from nav_msgs.msg import OccupancyGrid
from ros_harness import SECOND, START, Robot, header
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from test_scenedino_voxels import CAMERA, occupancy_bundle
from visualization_msgs.msg import MarkerArray

from cmp_seg_ros import resources
from cmp_seg_ros.messages import images, point_cloud2
from cmp_seg_ros.occupancy.grid import FREE, UNKNOWN, Grid, occupancy_slice

GRID = {"frame": "base", "voxel": 0.2, "shape": [20, 20, 10], "origin": [0.0, -2.0, 0.0]}
T_BASE_CAMERA = [[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.0], [0, 0, 0, 1]]


class CameraRobot(Robot):
    """A robot with one camera, whose network finds everything beyond 2 m occupied (`occupancy_bundle`)."""

    name = "/occupancy_node"

    def __init__(self, folder, *parameters: str) -> None:
        super().__init__(folder / "logs")
        (folder / "grid.yaml").write_text(yaml.safe_dump(GRID))
        bundle = occupancy_bundle(folder / "bundle").path
        given = [f"model:={bundle}", f"grid:={folder / 'grid.yaml'}", "occupied_rate_hz:=0.0", *parameters]
        self.clouds = self.subscribe(PointCloud2, f"{self.name}/occupied")
        self.program = self.start("occupancy_node", "--ros-args", *(a for one in given for a in ("-p", one)))
        self.images = self.publisher(Image, "/image")
        self.infos = self.publisher(CameraInfo, "/camera_info")
        self.number = 0

    def show(self, rgb=None, frame: str = "camera") -> None:
        rgb = np.full((96, 128, 3), 128, np.uint8) if rgb is None else rgb
        stamp = START + self.number * SECOND // 10
        encoding = "rgb8" if rgb.ndim == 3 else "mono8"
        self.images.publish(images.encode(rgb, encoding, header(stamp, frame), Image))
        self.number += 1

    def tell(self, width: int = 128, height: int = 96, model: str = "plumb_bob") -> None:
        fx, fy, cx, cy = CAMERA.intrinsics
        info = CameraInfo(width=width, height=height, distortion_model=model, k=[fx, 0, cx, 0, fy, cy, 0, 0, 1])
        self.infos.publish(info)

    def until_shown(self, condition, what: str):
        return self.until(lambda: self.show() or condition(), what)


def calibration(folder) -> str:
    fx, fy, cx, cy = CAMERA.intrinsics
    camera = {"model": "pinhole", "intrinsics": [fx, fy, cx, cy], "width": 128, "height": 96}
    camera |= {"T_camera_lidar": np.eye(4).tolist(), "T_base_camera": T_BASE_CAMERA}
    (folder / "robot.yaml").write_text(yaml.safe_dump({"cameras": {"front": camera}}))
    return f"calibration_file:={folder / 'robot.yaml'}"


def test_voxels_grid_and_images_of_a_calibrated_camera(start_robot, tmp_path):
    robot = start_robot(CameraRobot, calibration(tmp_path))
    robot.until_shown(lambda: robot.clouds, "a cloud of voxels")
    cloud = robot.clouds[-1]
    assert cloud.header.frame_id == "base_link" and [f.name for f in cloud.fields][-1] == "label"
    xyz = point_cloud2.decode(cloud).xyz
    assert 1.9 < xyz[:, 0].min() < 2.3 and (point_cloud2.decode_labels(cloud).label == 7).all()
    grids = robot.subscribe(OccupancyGrid, f"{robot.name}/grid")
    markers = robot.subscribe(MarkerArray, f"{robot.name}/markers")
    depths = robot.subscribe(Image, f"{robot.name}/depth_image")
    pictures = [robot.subscribe(Image, f"{robot.name}/{name}_image") for name in ("semantic", "feature")]
    robot.until_shown(lambda: grids and markers and depths and all(pictures), "all outputs")
    grid = np.array(grids[-1].data).reshape(20, 20)
    assert (grid[10, 1:9] == 0).all() and (grid[10, 11:] == 100).all() and (grid[0, :3] == -1).all()
    assert (grids[-1].info.resolution, grids[-1].info.origin.position.y) == (pytest.approx(0.2), -2.0)
    [cubes] = markers[-1].markers
    assert len(cubes.points) == len(cubes.colors) == len(xyz) and cubes.header.frame_id == "base_link"
    depth = np.frombuffer(depths[-1].data, np.uint16)
    assert depths[-1].encoding == "16UC1" and abs(np.median(depth) - 2000) < 250
    palette = yaml.safe_load(resources.resource("config/label_spaces/image14.yaml").read_text())["classes"]
    colour = next(c["color"] for c in palette if c["id"] == 7)
    assert (images.to_rgb(pictures[0][-1]) == colour).all()
    assert "ms.voxels.p50" in robot.counts() or robot.until_shown(lambda: "ms.voxels.p50" in robot.counts(), "stages")


def test_without_a_pose_voxels_are_in_the_cameras_frame(start_robot):
    robot = start_robot(CameraRobot)
    robot.until_shown(lambda: "note.no_camera_info" in robot.counts(), "a note of the missing camera info")
    robot.tell()
    robot.until_shown(lambda: robot.clouds, "a cloud of voxels")
    assert robot.clouds[-1].header.frame_id == "camera"
    assert point_cloud2.decode(robot.clouds[-1]).xyz[:, 2].min() > 1.7
    robot.until_shown(lambda: "give T_base_camera" in robot.health.message, "a warning")
    robot.show(np.full((96, 128), 100, np.uint8))  # mono
    before = int(robot.counts()["out"])
    robot.until_shown(lambda: int(robot.counts()["out"]) > before, "voxels of a grey image")
    robot.tell(64, 48)
    robot.until_shown(lambda: int(robot.counts().get("dropped.no_camera", 0)), "a camera info of another size")
    assert "both must come from the same camera" in robot.program.err
    robot.tell(model="thin_prism")
    before = int(robot.counts()["dropped.no_camera"])
    robot.until_shown(lambda: int(robot.counts()["dropped.no_camera"]) > before, "an unknown model")
    robot.until(lambda: "'thin_prism'" in robot.program.err or robot.show(), "its name")


def test_nothing_is_computed_for_nobody(start_robot, tmp_path):
    robot = start_robot(CameraRobot, calibration(tmp_path), "occupied_rate_hz:=0.001")
    robot.until_shown(lambda: robot.clouds, "the first cloud")
    robot.until_shown(lambda: int(robot.counts().get("out", 0)) > 3, "more images")
    assert len(robot.clouds) == 1


def test_a_bundle_of_another_kind_is_refused(robot, tiny_bundle):
    program = robot.start("occupancy_node", "--ros-args", "-p", f"model:={tiny_bundle}")
    assert program.wait() == 1 and "is of kind segmentation; give one of kind occupancy" in program.err


def test_a_column_is_free_only_if_something_of_it_is_seen_and_empty():
    grid = Grid(voxel=0.5, shape=(2, 2, 4), origin=(0.0, 0.0, 0.0))
    label = np.full((2, 2, 4), UNKNOWN, np.uint8)
    label[0, 0, 0] = 3  # the floor, below the slice
    label[0, 0, 1] = FREE
    label[1, 0, 1], label[1, 0, 2] = FREE, 4
    label[1, 1, 3] = 4  # above it
    assert occupancy_slice(label, grid, 0.5, 1.5).tolist() == [[0, 100], [-1, -1]]
