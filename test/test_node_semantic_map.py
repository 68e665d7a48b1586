"""The semantic map node over DDS: labelled clouds and odometry in, map, grid and files out."""

import numpy as np
import yaml
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import OccupancyGrid, Odometry
from ros_harness import SECOND, START, Robot, header
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import String
from std_srvs.srv import Trigger
from test_node_tf import broadcaster  # noqa: F401  (a fixture)

from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import point_cloud2
from cmp_seg_ros.ros import qos
from cmp_seg_ros.scan import Labels

SIX = LabelSpace.load("structural6")
WALL, FLOOR, PERSON = 0, 1, 5
STEP = SECOND // 10


def places() -> tuple[np.ndarray, np.ndarray]:
    """A floor of 4 x 4 m, a wall along its far side, and somebody in the middle; in the world."""
    x, y = (a.ravel() for a in np.meshgrid(np.arange(0.05, 4, 0.1), np.arange(-1.95, 2, 0.1)))
    floor = np.stack([x, y, np.full(x.shape, 0.05)], axis=1)
    y, z = (a.ravel() for a in np.meshgrid(np.arange(-1.95, 2, 0.1), np.arange(0.15, 2, 0.1)))
    wall = np.stack([np.full(y.shape, 3.95), y, z], axis=1)
    person = np.array([[2.05, 0.05, z] for z in np.arange(0.25, 1.7, 0.1)])
    xyz = np.concatenate([floor, wall, person])
    return xyz, np.repeat(np.array([FLOOR, WALL, PERSON], np.uint8), [len(floor), len(wall), len(person)])


class MapRobot(Robot):
    """A robot that drives along x at 0.5 m/s and publishes what it sees."""

    name = "/semantic_map_node"

    def __init__(self, folder, *parameters: str, early: bool = False) -> None:
        super().__init__(folder / "logs")
        calibration = {"lidars": {"top": {"T_base_lidar": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0.9], [0, 0, 0, 1]]}}}
        (folder / "robot.yaml").write_text(yaml.safe_dump(calibration))
        given = [f"calibration_file:={folder / 'robot.yaml'}", f"folder:={folder / 'saved'}", *parameters]
        self.maps = self.subscribe(PointCloud2, f"{self.name}/map", qos.LATCHED)
        self.grids = self.subscribe(OccupancyGrid, f"{self.name}/grid", qos.LATCHED)
        self.fused = self.subscribe(PointCloud2, f"{self.name}/fused_points")
        if early:  # before anybody listens
            self.spaces = self.node.create_publisher(String, "/label_space", qos.LATCHED)
            self.spaces.publish(String(data=SIX.to_yaml()))
        arguments = ["semantic_map_node", "--ros-args", *(part for one in given for part in ("-p", one))]
        self.program = self.start(*arguments)
        self.clouds = self.publisher(PointCloud2, "/labelled_points")
        self.odometry = None if "odometry:=tf" in parameters else self.publisher(Odometry, "/odometry")
        self.number = 0

    def say_space(self) -> None:
        self.spaces = self.publisher(String, "/label_space", qos.LATCHED)
        self.spaces.publish(String(data=SIX.to_yaml()))

    def drive(self, x0: float = 0.0, with_odometry: bool = True, sight: float = 100.0, at: float | None = None) -> None:
        """Publish the next cloud, of what is in sight, and the odometry around it; `at` a place, or on the way."""
        stamp, x = START + self.number * STEP, x0 + 0.05 * self.number if at is None else at
        for before in (-1, 0, 1) if with_odometry and self.odometry else ():
            message = Odometry(header=header(stamp + before * STEP, "odom"), child_frame_id="base_link")
            message.pose.pose.position.x = x + 0.05 * before
            message.pose.pose.orientation.w = 1.0
            self.odometry.publish(message)
        xyz, label = places()
        seen = (xyz - [x, 0, 0.9]).astype(np.float32)
        near = np.hypot(seen[:, 0], seen[:, 1]) < sight
        seen, label = seen[near], label[near]
        bare = point_cloud2.encode({axis: seen[:, i] for i, axis in enumerate("xyz")}, (1, len(seen)))
        bare = bare.message(header(stamp), PointCloud2, PointField)
        labelled = point_cloud2.encode_labelled(bare, Labels(label, np.full(len(label), 0.9, np.float32)), SIX)
        self.clouds.publish(labelled.message(header(stamp), PointCloud2, PointField))
        self.number += 1

    def save(self) -> Trigger.Response:
        return self.call(Trigger, "save")


def occupancy_at(grid: OccupancyGrid, x: float, y: float) -> int:
    column = int((x - grid.info.origin.position.x) / grid.info.resolution)
    row = int((y - grid.info.origin.position.y) / grid.info.resolution)
    return grid.data[row * grid.info.width + column]


def test_a_label_space_that_came_before_the_node_counts(start_robot):
    robot = start_robot(MapRobot, early=True)
    robot.until(lambda: robot.drive() or int(robot.counts().get("scans_fused", 0)) > 0, "a fused scan")


def test_map_and_grid_grow_without_people_and_are_saved(start_robot, tmp_path):
    robot = start_robot(MapRobot, "map_rate_hz:=5.0", "grid_rate_hz:=5.0")
    robot.drive()
    robot.until(lambda: "no_label_space" in " ".join(robot.counts()), "a note of the missing label space")
    assert not robot.maps
    answer = robot.save()
    assert not answer.success and "no map yet" in answer.message
    robot.say_space()
    robot.until(lambda: robot.drive() or (robot.grids and int(robot.counts().get("scans_fused", 0)) > 3), "a grid")
    robot.until(lambda: robot.drive() or len(robot.maps) > 2, "maps")
    cloud, grid = robot.maps[-1], robot.grids[-1]
    assert cloud.header.frame_id == grid.header.frame_id == "odom"
    label = point_cloud2.decode_labels(cloud).label
    xyz = point_cloud2.decode(cloud).xyz
    assert set(label.tolist()) == {WALL, FLOOR}, "nobody stands in the map"
    np.testing.assert_allclose(xyz[label == WALL, 0], 3.95, atol=0.01)
    assert occupancy_at(grid, 3.95, 1.0) == 100 and occupancy_at(grid, 1.0, 1.0) == 0
    assert occupancy_at(grid, 2.05, 0.05) == 0, "floor where somebody stands"
    assert len(robot.fused[-1].data) > 0
    answer = robot.save()
    assert answer.success, answer.message
    about = yaml.safe_load((tmp_path / "saved" / "grid.yaml").read_text())
    assert about["resolution"] == 0.1 and (tmp_path / "saved" / about["image"]).read_bytes().startswith(b"P5")
    assert {"map.ply", "map.pcd", "floor_plan.png", "floor_plan.svg"} <= {
        p.name for p in (tmp_path / "saved").iterdir()
    }
    late = robot.subscribe(OccupancyGrid, f"{robot.name}/grid", qos.LATCHED)
    robot.until(lambda: late, "the last grid, for one who comes late")
    assert robot.program.stop() == 0


def test_clouds_wait_for_odometry_and_a_jump_begins_a_new_map(start_robot, tmp_path):
    robot = start_robot(MapRobot, "grid_rate_hz:=5.0", "label_space:=structural6")
    robot.drive(with_odometry=False)
    robot.until(lambda: "note.no_pose" in robot.counts(), "a note of the missing pose")
    robot.until(lambda: robot.drive() or robot.grids, "a grid")
    first = robot.grids[-1].info
    robot.until(lambda: robot.drive(x0=-30) or "note.new_map" in robot.counts(), "a new map")
    assert "odometry jumps by" in robot.program.err
    robot.until(lambda: robot.drive(x0=-30) or robot.grids[-1].info.width == first.width, "a grid of the new map alone")
    assert (tmp_path / "saved-1" / "map.ply").exists()


def test_poses_come_from_tf_where_that_is_asked_for(broadcaster, start_robot):  # noqa: F811
    robot = start_robot(MapRobot, "odometry:=tf", "fixed_frame:=map", "grid_rate_hz:=5.0", "label_space:=structural6")
    robot.drive()
    robot.until(lambda: "note.no_pose" in robot.counts(), "a note of the missing transform")
    message = TransformStamped(header=header(START, "map"), child_frame_id="lidar")
    message.transform.translation.x, message.transform.translation.z = 10.0, 0.9
    message.transform.rotation.w = 1.0
    broadcaster(robot.node).sendTransform(message)
    robot.until(lambda: robot.drive() or robot.grids, "a grid")
    grid = robot.grids[-1]
    assert grid.header.frame_id == "map"
    assert occupancy_at(grid, 11.05, 1.0) == 0, "ten metres on, as TF says"


def test_far_places_are_forgotten(start_robot):
    robot = start_robot(MapRobot, "radius:=2.0", "label_space:=structural6", "map_rate_hz:=10.0")
    robot.until(lambda: robot.drive(sight=1.5, at=0) or len(robot.maps) > 2, "a map")
    assert least_x(robot) < 0.2
    robot.number += 70  # seven seconds, for 3.5 m
    robot.until(lambda: robot.drive(sight=1.5, at=3.5) or least_x(robot) > 1.0, "its start to be forgotten")


def least_x(robot: MapRobot) -> float:
    """Of the last map."""
    return float(point_cloud2.decode(robot.maps[-1]).xyz[:, 0].min())
