"""Real nodes in real processes, and this process as one more participant of their DDS domain."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from cmp_seg_ros.messages import point_cloud2
from cmp_seg_ros.ros import diagnostics, environment, qos
from cmp_seg_ros.scan import Scan

PATIENCE = 240.0  # seconds until a test gives up; a few on an idle machine, but tests may share theirs
NODES = "cmp_seg_ros.nodes"
SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND


class Process:
    """A program in the domain; its output goes to files."""

    def __init__(self, arguments: list[str], folder: Path, env: dict[str, str]) -> None:
        stem = f"{len(list(folder.iterdir()))}"
        self.out_file, self.err_file = folder / f"{stem}.out", folder / f"{stem}.err"
        with self.out_file.open("w") as out, self.err_file.open("w") as err:
            self.process = subprocess.Popen(arguments, stdout=out, stderr=err, env=env)

    @property
    def out(self) -> str:
        return self.out_file.read_text()

    @property
    def err(self) -> str:
        """What it logged, less what the middleware itself has to say."""
        return "\n".join(line for line in self.err_file.read_text().splitlines() if "rmw_fastrtps" not in line)

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit status."""
        return self.process.wait(timeout)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Tell it to stop, and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def end(self) -> None:
        """Have it stop, whatever it takes."""
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.wait()


class Robot:
    """A ROS graph of processes under test, with a node of this process in it.

    Attributes:
        name: of the node whose health is asked for, with its namespace.
        reports: all that came on /diagnostics.
    """

    name = ""

    def __init__(self, folder: Path) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        folder.mkdir(parents=True, exist_ok=True)
        environment.prepare()
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        self.domain = environment.Domain()
        self.folder = folder
        self.processes: list[Process] = []
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context, domain_id=self.domain.number)
        self.node = rclpy.create_node("test", context=self.context, start_parameter_services=False)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self.reports = self.subscribe(DiagnosticArray, "/diagnostics")

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, *arguments: str) -> Process:
        """Start a program: a module of the nodes, or a path, and its arguments."""
        program = [arguments[0]] if "/" in arguments[0] else ["-m", f"{NODES}.{arguments[0]}"]
        command = [sys.executable, *program, *arguments[1:]]
        env = os.environ | {"ROS_DOMAIN_ID": str(self.domain.number), "OMP_NUM_THREADS": "1"}
        self.processes.append(Process(command, self.folder, env))
        return self.processes[-1]

    def subscribe(self, message: type, topic: str, profile: Any = qos.OUTPUT) -> list[Any]:
        """The messages of a topic, as they come."""
        received: list[Any] = []
        self.node.create_subscription(message, topic, received.append, profile)
        return received

    def publisher(self, message: type, topic: str, profile: Any = qos.OUTPUT) -> Any:
        """A publisher that somebody has subscribed to."""
        publisher = self.node.create_publisher(message, topic, profile)
        self.until(publisher.get_subscription_count, f"a subscriber of {topic}")
        return publisher

    def until(self, condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
        """Let messages come until the condition holds; its value. Fails with what the processes have logged."""
        end = time.monotonic() + timeout
        while not (value := condition()):
            if time.monotonic() > end:
                logs = "\n".join(process.err for process in self.processes)
                raise AssertionError(f"waited {timeout} s in vain for {what}; the processes say:\n{logs}")
            self._executor.spin_once(timeout_sec=0.05)
        return value

    def call(self, service: Any, name: str, **fields: Any) -> Any:
        """The answer of a service of the node."""
        client = self.node.create_client(service, f"{self.name}/{name}")
        self.until(client.service_is_ready, f"the service {name}")
        future = client.call_async(service.Request(**fields))
        self.until(future.done, "an answer")
        return future.result()

    def close(self) -> None:
        for process in self.processes:  # killed, they would leave their shared memory behind
            process.end()
        self.node.destroy_node()
        self.context.try_shutdown()
        self.domain.release()

    @property
    def health(self) -> DiagnosticStatus:
        """The last report of the node; without a level before the first."""
        ours = [status for array in self.reports for status in array.status if status.name.startswith(f"{self.name}:")]
        return ours[-1] if ours else DiagnosticStatus(level=b"\xff")

    def counts(self) -> dict[str, str]:
        return diagnostics.values(self.health)


def header(stamp: int, frame: str = "lidar") -> Header:
    result = Header(frame_id=frame)
    result.stamp.sec, result.stamp.nanosec = divmod(stamp, SECOND)
    return result


def empty_room(points: int = 16384) -> Scan:
    """A scan of a bare room, without intensity."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(points, 3)).astype(np.float32)
    half = np.array([4.0, 5.0, 1.5], np.float32)  # metres
    reach = (half / np.abs(directions)).min(axis=1, keepdims=True)
    return Scan(directions * reach)


def room(count: int = 16 * 128, seed: int = 0) -> Scan:
    """A bare room with a few rays that do not return."""
    xyz = empty_room(count).xyz.copy()
    rng = np.random.default_rng(seed)
    xyz[rng.random(count) < 0.1] = 0
    return Scan(xyz + rng.normal(0, 0.01, xyz.shape) * xyz.any(axis=1, keepdims=True), rng.uniform(0, 100, count))


def cloud(scan: Scan, stamp: int = START, **changes) -> PointCloud2:
    """The scan in the layout of the Ouster driver, or with fields as they are given."""
    fields = {axis: scan.xyz[:, i] for i, axis in enumerate("xyz")}
    offsets, step = {"x": 0, "y": 4, "z": 8}, 48
    if scan.intensity is not None:
        fields["intensity"] = scan.intensity
        fields["ring"] = np.repeat(np.arange(16, dtype=np.uint16), len(scan) // 16 + 1)[: len(scan)]
        offsets |= {"intensity": 16, "ring": 26}
    shape = (16, len(scan) // 16) if len(scan) % 16 == 0 else (1, len(scan))
    message = point_cloud2.encode(fields, shape, offsets, step).message(header(stamp), PointCloud2, PointField)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


class Graph(Robot):
    """A robot with one segmentation node, everything it says, and a publisher of its clouds.

    Args:
        arguments: of the program; the first is its module, or a script.
        name: of the node with its namespace.
    """

    def __init__(self, folder: Path, *arguments: str, name: str = "/segmentation_node") -> None:
        super().__init__(folder)
        self.name = name
        self.labelled = self.subscribe(PointCloud2, f"{name}/labelled_points")
        self.infos = self.subscribe(DiagnosticStatus, f"{name}/scan_info")
        self.program = self.start(*arguments)
        try:
            self.points = self.publisher(PointCloud2, "/points")
            self.until(self.matched, "a node that is ready")
        except BaseException:
            self.close()
            raise

    def until(self, condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
        """As with any robot, but for no longer than the node lives."""

        def holds() -> Any:
            if not (value := condition()) and self.program.process.poll():
                raise AssertionError(f"the node ended before {what}; it says:\n{self.program.err}")
            return value

        return super().until(holds, what, timeout)

    def matched(self) -> bool:
        topics = ("labelled_points", "scan_info")
        return all(self.node.count_publishers(f"{self.name}/{topic}") for topic in topics)

    def healthy(self) -> bool:
        return self.health.level == diagnostics.OK

    def warns(self, pattern: str, level: bytes = diagnostics.WARN) -> bool:
        """Whether the last report has that level, and says so."""
        return self.health.level == level and re.search(pattern, self.health.message) is not None

    def set_parameter(self, name: str, value: Any) -> Any:
        """Change a parameter of the node; the result."""
        change = Parameter(name, value=value).to_parameter_msg()
        return self.call(SetParameters, "set_parameters", parameters=[change]).results[0]

    def logged(self, pattern: str) -> bool:
        return re.search(pattern, self.program.err) is not None

    def label(self, message: PointCloud2) -> PointCloud2:
        """Send a cloud and get its labels."""
        before = len(self.labelled)
        self.points.publish(message)
        self.until(lambda: len(self.labelled) > before, "a labelled cloud")
        return self.labelled[-1]


def node_arguments(bundle: Path, **parameters: Any) -> list[str]:
    """The command line of a segmentation node."""
    # Without a target rate, labels are those of the bundle's voxels however busy the machine is.
    given = {"model": bundle, "engine": "reference", "target_rate_hz": 0} | parameters
    return [
        "segmentation_node",
        "--ros-args",
        *(part for name, value in given.items() for part in ("-p", f"{name}:={value}")),
    ]
