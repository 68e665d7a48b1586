"""Base class of nodes that process the newest message of a topic, one at a time, in a worker thread.

A subclass declares what it subscribes to, what it computes and what it publishes:

    class CountNode(WorkerNode[int]):
        def __init__(self):
            super().__init__("count_node", PARAMETERS, PointCloud2, "points")

        def set_up(self):
            self.add_output(UInt32, "~/count", lambda count: UInt32(data=count))

        def process(self, arrival, clock):
            return deserialize_message(arrival.data, PointCloud2).width

The base has the rest: the life cycle (`configure`, `activate`, `deactivate`, `clean_up`), the worker, the common
parameters, and /diagnostics. Every message is accounted for: in = out + dropped + pending.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from std_srvs.srv import SetBool

from cmp_seg_ros.errors import describe
from cmp_seg_ros.messages import cdr
from cmp_seg_ros.ros import qos, runner
from cmp_seg_ros.ros.diagnostics import ERROR, WARN
from cmp_seg_ros.ros.inputs import Arrival, Inputs
from cmp_seg_ros.ros.parameters import Parameter, Parameters, command_line
from cmp_seg_ros.ros.report import Problem, Report
from cmp_seg_ros.ros.stopwatch import Stopwatch

Result = TypeVar("Result")

WORKER = "worker of the node"
ENDING = 2.0  # seconds that shutdown waits for the worker; building an engine may take minutes
HOLD = 0.1  # seconds before a held message is tried again
STUCK = 5.0  # seconds without a result, and times as long as the last took; less is only slow
PLAUSIBLE_AGE_MS = 60e3  # older stamps come from another clock, as when a bag is played with its own stamps
PARAMETERS = [
    Parameter(
        "input_reliability",
        "auto",
        "Quality of service of the inputs; auto is reliable until a publisher offers only best effort",
        ("auto", "reliable", "best_effort"),
    ),
    Parameter(
        "only_when_subscribed", False, "Work only while somebody subscribes to an output; other messages are dropped"
    ),
    Parameter(
        "error_age",
        2.0,
        "Maximum seconds from the arrival of a message to its result; beyond it the health is ERROR; 0: no limit",
        (0.0, 3600.0),
        read_only=False,
    ),
    Parameter(
        "error_rate_hz",
        0.5,
        "Minimum results per second; below it, and below half of the input rate, the health is ERROR; 0: no limit",
        (0.0, 1000.0),
        read_only=False,
    ),
    Parameter("threads", 0, "Threads of the engine; 0: the engine decides", (0, 256)),
]


class Rejected(Exception):
    """A message is unusable, and is counted under `reason`. Raise it from the error that explains why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotYet(Exception):
    """A message must wait for something that is missing. It is held until a newer one arrives."""


@dataclass(frozen=True)
class Output(Generic[Result]):
    """A published topic.

    make: converts a result to a message, serialised or not, or to None to publish nothing.
    late: whether `finish` publishes it.
    """

    publisher: Publisher[Any]
    make: Callable[[Result], Any]
    late: bool

    @property
    def wanted(self) -> bool:
        """Whether anybody subscribes."""
        return self.publisher.get_subscription_count() > 0


class WorkerNode(Node, Generic[Result]):
    """A node that turns the newest message of a topic into a `Result`. Raises UserError for invalid parameters.

    Args:
        name: node name, before remapping.
        table: all parameters, including PARAMETERS.
        message: type of the main topic; it must begin with a std_msgs/Header.
        topic: name of the main topic, before remapping.

    Attributes:
        done: exit status, once the node has failed; None before.
        inputs: the main topic; `set_up` may add others.
        loaded: whether `load` has finished.
        enabled: state set by the service ~/enable.
    """

    work, things = "working on", "messages"  # verb and object for /diagnostics

    def __init__(self, name: str, table: list[Parameter], message: type, topic: str) -> None:
        super().__init__(name)
        self.done: int | None = None
        self.loaded, self.enabled = False, True
        self.parameters = Parameters(self, table)
        if threads := self.parameters["threads"]:  # before an engine's runtime is imported
            for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
                os.environ[variable] = str(threads)
        self.report = Report(self, self.work, self.things)
        reliability = self.parameters["input_reliability"]
        self.inputs = Inputs(self, *self.main_topic(message, topic), self.report.tally, reliability)
        self._outputs: list[Output[Result]] = []
        self._since: float | None = None  # arrival of the message being processed; None when idle
        self._took = 0.0  # seconds of the last result
        self._oldest = 0.0  # seconds of the slowest message since the last report
        self._worker = threading.Thread(target=self._run, name=WORKER, daemon=True)
        self._loaded = self.create_guard_condition(self.activate)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # runs even when simulated time is paused
        self.create_timer(1.0, self.publish_diagnostics, clock=steady)

    # To be overridden.

    def main_topic(self, message: type, topic: str) -> tuple[type, str]:
        """Type and name of the main topic; may depend on `parameters`."""
        return message, topic

    def set_up(self) -> None:
        """Add inputs and outputs. Raises UserError."""

    def load(self) -> None:
        """Do slow initialisation, in the worker thread. Raises UserError."""

    def process(self, arrival: Arrival, clock: Stopwatch) -> Result:
        """Compute the result of a message.

        Args:
            clock: times the stages shown in /diagnostics.

        Raises:
            Rejected: the message is unusable.
            NotYet: the message must wait.
            Exception: any other exception counts as a failure.
        """
        raise NotImplementedError

    def settled(self, result: Result) -> bool:
        """Whether late outputs can be made. They wait at most until the next message."""
        return True

    def finish(self, result: Result) -> None:
        """Last step for a result: by default, publish the late outputs."""
        self.publish_late(result)

    def values(self) -> dict[str, Any]:
        """Additional values for /diagnostics."""
        return {}

    def problems(self) -> list[Problem]:
        """Current problems, other than those noted with `report.note`."""
        return []

    # For subclasses.

    def add_output(
        self, message: type, topic: str, make: Callable[[Result], Any], late: bool = False
    ) -> Output[Result]:
        """Publish `make(result)` for each result on a topic, while it has subscribers.

        The first output is the main one: if it fails, the message counts as dropped.
        """
        self._outputs.append(Output(self.create_publisher(message, topic, qos.OUTPUT), make, late))
        return self._outputs[-1]

    def publish_late(self, result: Result) -> None:
        """Make and publish the late outputs, in the order in which they were added."""
        self._publish([output for output in self._outputs if output.late], result)

    # Life cycle.

    def configure(self) -> None:
        """Set up and start loading; the node becomes active when loading has finished. Raises UserError."""
        self.set_up()
        self.create_service(SetBool, "~/enable", self._on_enable)
        self.publish_diagnostics()
        self._worker.start()

    def activate(self) -> None:
        """Subscribe to the inputs, unless the node is disabled."""
        if self.enabled:
            self.inputs.subscribe()

    def deactivate(self, reason: str = "shutdown") -> None:
        """Unsubscribe; a pending message is dropped with this reason."""
        self.inputs.unsubscribe(reason)

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data != self.enabled:
            self.enabled = request.data
            if not self.enabled:
                self.deactivate("disabled")
            elif self.loaded:
                self.activate()
        response.success, response.message = True, "enabled" if self.enabled else "disabled"
        return response

    def clean_up(self) -> None:
        """Finish the current message and stop the worker."""
        self.inputs.close()
        if self._worker.is_alive():
            self._worker.join(ENDING)
        if self._worker.is_alive():
            doing = f"{self.work} one of the {self.things}" if self.loaded else "loading the model"
            self.get_logger().info(f"stopped while {doing}")
            if self._since is not None:
                self.report.tally.drop("shutdown")

    def close(self) -> None:
        """Shut down: account for every message and publish a last report."""
        self.deactivate()
        self.clean_up()
        self.publish_diagnostics()

    # The worker.

    def _run(self) -> None:
        try:
            self.load()
            self.loaded = True
            self._loaded.trigger()
            self._work()
        except Exception as error:  # whatever it is, the process must not go on without its worker
            self.get_logger().fatal(describe(error))
            self.done = 1

    def _work(self) -> None:
        """Process the newest message, again and again, until the node closes."""
        while self.inputs.wait():
            arrival = self.inputs.take()
            if arrival is None:
                continue
            self._since = arrival.time
            clock = Stopwatch(arrival.time)
            try:
                result = self._process(arrival, clock)
            except NotYet:
                self._since = None
                self.inputs.hold(arrival, HOLD)
                continue
            self._since = None
            if result is not None:
                self.inputs.wait(lambda result=result: self.settled(result))  # type: ignore[misc]
                clock.resume()
                self.finish(result)

    def _process(self, arrival: Arrival, clock: Stopwatch) -> Result | None:
        """Process a message and publish its outputs. Returns None if it was dropped."""
        tally, (main, *others) = self.report.tally, self._outputs
        self.report.frame = cdr.frame_id(arrival.data)
        if self._unwanted():
            tally.drop("unsubscribed")
            return None
        try:
            result = self.process(arrival, clock)
            if main.wanted:
                message = main.make(result)
                clock.lap("encode")
                if message is not None:
                    main.publisher.publish(message)
                    clock.lap("publish")
        except NotYet:
            raise
        except Exception as error:
            tally.drop(error.reason if isinstance(error, Rejected) else "failed")
            self.report.warn(f"message {arrival.number} on {self.inputs.main.topic} is dropped: {_words(error)}")
            return None
        finally:
            self._oldest = max(self._oldest, 1e-3 * clock.total_ms)
        clock.stages_ms["total"] = clock.total_ms
        self._took = 1e-3 * clock.total_ms
        age_ms = 1e-6 * (self.get_clock().now().nanoseconds - cdr.stamp_ns(arrival.data))
        if 0 <= age_ms < PLAUSIBLE_AGE_MS:
            clock.stages_ms["age"] = age_ms
        tally.publish(clock.stages_ms)
        self._publish([output for output in others if not output.late], result)
        clock.pause()
        return result

    def _publish(self, outputs: list[Output[Result]], result: Result) -> None:
        for output in outputs:
            if not output.wanted:
                continue
            try:
                if (message := output.make(result)) is not None:
                    output.publisher.publish(message)
            except Exception as error:
                name = output.publisher.topic_name.rpartition("/")[2]
                self.report.note(f"no_{name}", f"no {name}: {_words(error)}")

    # Diagnostics.

    def _unwanted(self) -> bool:
        return bool(self.parameters["only_when_subscribed"]) and not any(output.wanted for output in self._outputs)

    def publish_diagnostics(self) -> None:
        """Publish /diagnostics."""
        asleep, problems = "", []
        self.inputs.adapt()
        if not self.loaded:
            problems.append(Problem(WARN, "loading the model", quiet=True))
        elif not self.enabled:
            asleep = "disabled by ~/enable"
        else:
            asleep = "idle, since nobody subscribes (only_when_subscribed)" if self._unwanted() else ""
            problems += self._late() + self.problems()
            if problem := self.inputs.main.problem():
                problems.append(Problem(WARN, problem))
        values = self.inputs.main.values() | self.values()
        self.report.publish(values, problems, self.parameters["error_rate_hz"], asleep)

    def _late(self) -> list[Problem]:
        """Messages that exceeded error_age now or since the last report."""
        since, oldest, limit = self._since, self._oldest, self.parameters["error_age"]
        self._oldest = 0.0
        age = time.monotonic() - since if since is not None else 0.0
        if not limit or max(age, oldest) <= limit:
            return []
        if age > max(limit, STUCK, STUCK * self._took):
            return [Problem(ERROR, f"stuck: {self.work} one of the {self.things} for {age:.1f} s")]
        if age > limit:
            last = f", the last took {1e3 * self._took:.0f} ms" if self._took else ""
            return [Problem(ERROR, f"late: no result for {age:.1f} s{last}; error_age is {limit:g} s")]
        return [Problem(ERROR, f"late: a result came {oldest:.1f} s after its message, error_age is {limit:g} s")]


def _words(error: BaseException) -> str:
    """An error in one line, with its type unless it is a UserError."""
    if isinstance(error, Rejected) and error.__cause__ is not None:
        error = error.__cause__
    return describe(error)


def main(name: str, make: Callable[[], WorkerNode[Any]], description: str, table: list[Parameter]) -> None:
    """Entry point of a program that runs one node."""
    runner.arguments(name, command_line(name, description, table))
    status = runner.run(name, make)
    if any(thread.name == WORKER for thread in threading.enumerate()):  # in a compiler, which cannot be stopped
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
