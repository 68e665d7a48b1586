"""Large messages between processes: every one arrives, or is known to be lost."""

import fcntl
import os
from pathlib import Path

from rclpy.qos import QoSProfile
from ros_harness import Robot
from sensor_msgs.msg import PointCloud2

from cmp_seg_ros import resources
from cmp_seg_ros.ros import environment
from cmp_seg_ros.ros.inputs import Topic

CLOUDS, RATE, SIZE = 20, 10.0, 2_000_000
PUBLISHER = """
import sys, time
from array import array
from cmp_seg_ros.ros import environment
environment.prepare()
import rclpy
from rclpy.duration import Duration
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2
reliability, clouds, rate, size = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
rclpy.init()
node = rclpy.create_node("publisher")
profile = QoSProfile(depth=clouds, reliability=ReliabilityPolicy[reliability])
publisher = node.create_publisher(PointCloud2, "clouds", profile)
while not publisher.get_subscription_count():
    time.sleep(0.01)
start = time.monotonic()
for number in range(clouds):
    msg = PointCloud2(width=number)
    msg.data = array("B", [number]) * size
    publisher.publish(msg)
    time.sleep(max(0.0, start + (number + 1) / rate - time.monotonic()))
publisher.wait_for_all_acked(Duration(seconds=30))
"""


def start_publisher(robot: Robot, tmp_path: Path, reliability: str):
    script = tmp_path / "publisher.py"
    script.write_text(PUBLISHER)
    return robot.start(str(script), reliability, str(CLOUDS), str(RATE), str(SIZE))


def test_clouds_of_two_megabytes_at_ten_hertz_all_arrive(robot, tmp_path):
    clouds = robot.subscribe(PointCloud2, "clouds", QoSProfile(depth=CLOUDS))
    publisher = start_publisher(robot, tmp_path, "RELIABLE")
    robot.until(lambda: len(clouds) == CLOUDS, f"{CLOUDS} clouds of {SIZE} bytes")
    assert publisher.wait() == 0
    assert [cloud.width for cloud in clouds] == list(range(CLOUDS))
    assert all(len(cloud.data) == SIZE and cloud.data[-1] == cloud.width for cloud in clouds)


def test_input_becomes_best_effort_where_the_publisher_is(robot, tmp_path):
    clouds: list[bytes] = []
    topic = Topic(robot.node, PointCloud2, "clouds", clouds.append)
    topic.subscribe()
    assert topic.values()["reliability"] == "reliable"
    publisher = start_publisher(robot, tmp_path, "BEST_EFFORT")
    robot.until(lambda: len(clouds) >= CLOUDS // 2, "clouds of a best-effort publisher")  # those after the change
    assert publisher.wait() == 0
    assert topic.values()["reliability"] == "best_effort"


def test_profile_is_used_unless_the_user_has_one(monkeypatch):
    monkeypatch.setenv(environment.OLD_VARIABLE, "")  # so that it is as before in the end
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    monkeypatch.delenv(environment.VARIABLE, raising=False)
    environment.prepare()
    assert os.environ[environment.VARIABLE] == str(resources.resource("config/fastdds.xml"))
    monkeypatch.setenv(environment.VARIABLE, "mine.xml")
    environment.prepare()
    assert os.environ[environment.VARIABLE] == "mine.xml"
    monkeypatch.delenv(environment.VARIABLE)
    monkeypatch.setenv("ROS_DISTRO", "humble")
    environment.prepare()
    assert os.environ[environment.OLD_VARIABLE].endswith("fastdds.xml")
    monkeypatch.delenv(environment.OLD_VARIABLE)
    monkeypatch.setenv(environment.VARIABLE, "mine.xml")  # which Fast DDS of that distribution does not look at
    environment.prepare()
    assert os.environ[environment.OLD_VARIABLE].endswith("fastdds.xml")


def test_only_dead_segments_are_freed(tmp_path):
    dead, alive, other = (f"fastdds_{digit * 16}" for digit in "0ab")
    for name in (dead, alive):
        (tmp_path / name).write_bytes(bytes(100))
        (tmp_path / f"{name}_el").touch()
    (tmp_path / other).touch()  # without a lock: not for us to judge
    for name in ("fastdds_port7410_el", "fastdds_port7410", "mine_el", "sem.x"):
        (tmp_path / name).touch()
    before = {path.name for path in tmp_path.iterdir()}
    with (tmp_path / f"{alive}_el").open() as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        assert environment.free_dead_segments(tmp_path) == 1
        assert before - {path.name for path in tmp_path.iterdir()} == {dead, f"{dead}_el"}
    assert environment.free_dead_segments(tmp_path / "none") == 0


def test_a_killed_process_leaves_no_shared_memory_for_long(robot, tmp_path):
    clouds = robot.subscribe(PointCloud2, "clouds", QoSProfile(depth=CLOUDS))
    before = set(environment.SHARED_MEMORY.iterdir())
    publisher = start_publisher(robot, tmp_path, "RELIABLE")
    robot.until(lambda: clouds, "a cloud")
    locks = [path for path in environment.SHARED_MEMORY.iterdir() if environment.SEGMENT_LOCK.fullmatch(path.name)]
    inodes = {path: path.stat().st_ino for path in locks if path not in before}
    held = Path("/proc/locks").read_text()
    owned = [path for path, inode in inodes.items() if f" {publisher.process.pid} " in held and f":{inode} " in held]
    assert owned, "the publisher has a segment"
    environment.free_dead_segments()
    assert all(path.exists() for path in owned), "the living keep theirs"
    publisher.process.kill()
    publisher.process.wait()
    environment.free_dead_segments()
    assert not any(path.exists() for path in owned)
    assert not any(path.with_name(path.name.removesuffix("_el")).exists() for path in owned)
