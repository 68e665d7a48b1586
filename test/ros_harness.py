"""Real nodes in real processes, and this process as one more participant of their DDS domain."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cmp_seg_ros.ros import environment, qos

PATIENCE = 240.0  # seconds until a test gives up; a few on an idle machine, but tests may share theirs
NODES = "cmp_seg_ros.nodes"


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
    """A ROS graph of processes under test, with a node of this process in it."""

    def __init__(self, folder: Path) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

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

    def close(self) -> None:
        for process in self.processes:  # killed, they would leave their shared memory behind
            process.end()
        self.node.destroy_node()
        self.context.try_shutdown()
        self.domain.release()
