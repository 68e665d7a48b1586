"""The base of nodes that work on the newest message of a topic, one at a time, in a thread of their own.

Such a node says what it subscribes to, what it computes and what it publishes:

    class CountNode(WorkerNode[int]):
        def __init__(self):
            super().__init__("count_node", PARAMETERS, PointCloud2, "points")

        def set_up(self):
            self.add_output(UInt32, "~/count", lambda count: UInt32(data=count))

        def process(self, arrival, clock):
            return deserialize_message(arrival.data, PointCloud2).width

The rest is here: the way from start to end (`configure`, `activate`, `deactivate`, `clean_up`), the worker, parameters
that all have, and /diagnostics. What became of every message is counted: in = out + dropped + pending.
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

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.messages import cdr
from cmp_seg_ros.ros import qos, runner
from cmp_seg_ros.ros.diagnostics import ERROR, WARN
from cmp_seg_ros.ros.inputs import Arrival, Inputs
from cmp_seg_ros.ros.parameters import Parameter, Parameters, command_line
from cmp_seg_ros.ros.report import Problem, Report
from cmp_seg_ros.ros.stopwatch import Stopwatch

Result = TypeVar("Result")

WORKER = "worker of the node"
ENDING = 2.0  # seconds that the end of the node waits for its worker; building an engine may take minutes
HOLD = 0.1  # seconds until a message that waits for something is tried again
PLAUSIBLE_AGE_MS = 60e3  # older stamps are of another clock, as when a bag is played as it was recorded
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
        "Seconds from the arrival of a message to its result; the health is ERROR where one takes longer; 0: never",
        (0.0, 3600.0),
        read_only=False,
    ),
    Parameter(
        "error_rate_hz",
        0.5,
        "Results a second; the health is ERROR where there are fewer, and fewer than half of what comes; 0: never",
        (0.0, 1000.0),
        read_only=False,
    ),
    Parameter("threads", 0, "Threads of the engine; 0: as many as it sees fit", (0, 256)),
]


class Rejected(Exception):
    """Nothing can be made of a message, which is counted as `reason`. To be raised from the error that says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotYet(Exception):
    """Something is missing that a message needs: it waits, unless a newer one comes."""


@dataclass(frozen=True)
class Output(Generic[Result]):
    """A topic, and what makes its message of a result: serialised or not, or None where there is none.

    Late ones are made by `finish`.
    """

    publisher: Publisher[Any]
    make: Callable[[Result], Any]
    late: bool

    @property
    def wanted(self) -> bool:
        """Whether anybody subscribes."""
        return self.publisher.get_subscription_count() > 0


class WorkerNode(Node, Generic[Result]):
    """A node that turns the newest message of a topic into a `Result`. Raises UserError for wrong parameters.

    Args:
        name: of the node, unless it is remapped.
        table: its parameters, PARAMETERS among them.
        message: type of the main topic; it begins with a std_msgs/Header.
        topic: its name.

    Attributes:
        done: the exit status once the node has given up.
        inputs: the main topic; `set_up` may add others.
        loaded: whether `load` is over.
        enabled: what the service ~/enable was last told.
    """

    work, things = "working on", "messages"  # what it does, with what; for /diagnostics

    def __init__(self, name: str, table: list[Parameter], message: type, topic: str) -> None:
        super().__init__(name)
        self.done: int | None = None
        self.loaded, self.enabled = False, True
        self.parameters = Parameters(self, table)
        if threads := self.parameters["threads"]:  # before an engine's runtime is imported
            for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
                os.environ[variable] = str(threads)
        self.report = Report(self, self.work, self.things)
        self.inputs = Inputs(self, message, topic, self.report.tally, self.parameters["input_reliability"])
        self._outputs: list[Output[Result]] = []
        self._since: float | None = None  # when what the worker is at came; None while it waits
        self._oldest = 0.0  # seconds that the slowest message took since the last report
        self._worker = threading.Thread(target=self._run, name=WORKER, daemon=True)
        self._loaded = self.create_guard_condition(self.activate)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # turns also where a simulated time stands still
        self.create_timer(1.0, self.publish_diagnostics, clock=steady)

    # What a node fills in.

    def set_up(self) -> None:
        """Add inputs and outputs. Raises UserError."""

    def load(self) -> None:
        """Make ready what takes long, in the worker's thread. Raises UserError."""

    def process(self, arrival: Arrival, clock: Stopwatch) -> Result:
        """What is computed of a message.

        Raises:
            Rejected: it is of no use.
            NotYet: it should wait.
            Exception: whatever else is raised counts as a failure.

        Args:
            clock: its stages stand in /diagnostics.
        """
        raise NotImplementedError

    def settled(self, result: Result) -> bool:
        """Whether all is there that late outputs wait for. They wait until the next message at most."""
        return True

    def finish(self, result: Result) -> None:
        """The last that is done with a result."""
        self.publish_late(result)

    def values(self) -> dict[str, Any]:
        """Further values for /diagnostics."""
        return {}

    def problems(self) -> list[Problem]:
        """What is wrong at present, beside what is noted of messages."""
        return []

    # For its use.

    def add_output(
        self, message: type, topic: str, make: Callable[[Result], Any], late: bool = False
    ) -> Output[Result]:
        """Publish on a topic what `make` makes of each result, while somebody subscribes.

        The first output is the main one: where it fails the message counts as dropped.
        """
        self._outputs.append(Output(self.create_publisher(message, topic, qos.OUTPUT), make, late))
        return self._outputs[-1]

    def publish_late(self, result: Result) -> None:
        """Make and publish the late outputs, in the order in which they were added."""
        self._publish([output for output in self._outputs if output.late], result)

    # The way from start to end.

    def configure(self) -> None:
        """Set up, and load; when that is done the node becomes active. Raises UserError."""
        self.set_up()
        self.create_service(SetBool, "~/enable", self._on_enable)
        self.publish_diagnostics()
        self._worker.start()

    def activate(self) -> None:
        """Listen, unless the node is disabled."""
        if self.enabled:
            self.inputs.subscribe()

    def deactivate(self, reason: str = "shutdown") -> None:
        """Listen no more; a message that waits is dropped for that reason."""
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
        """Finish the message under way, and let the worker end."""
        self.inputs.close()
        if self._worker.is_alive():
            self._worker.join(ENDING)
        if self._worker.is_alive():
            doing = f"{self.work} one of the {self.things}" if self.loaded else "loading the model"
            self.get_logger().info(f"still {doing}, which is broken off")
            if self._since is not None:
                self.report.tally.drop("shutdown")

    def close(self) -> None:
        """The end: account for every message, and report for the last time."""
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
        except UserError as error:
            self.get_logger().fatal(str(error))
            self.done = 1
        except Exception as error:
            self.get_logger().fatal(f"the worker ended unexpectedly: {type(error).__name__}: {error}")
            self.done = 1

    def _work(self) -> None:
        """Every message that is the newest when the last is done, until the node closes."""
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
        """From the message that came to those that go; None where nothing can be made of it."""
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

    # What the node says about itself.

    def _unwanted(self) -> bool:
        return bool(self.parameters["only_when_subscribed"]) and not any(output.wanted for output in self._outputs)

    def publish_diagnostics(self) -> None:
        """Publish /diagnostics."""
        asleep, problems = "", []
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
        """Whether a message takes, or took since the last report, longer than it may."""
        since, oldest, limit = self._since, self._oldest, self.parameters["error_age"]
        self._oldest = 0.0
        age = time.monotonic() - since if since is not None else 0.0
        if not limit or max(age, oldest) <= limit:
            return []
        if age > limit:
            return [Problem(ERROR, f"stuck: {self.work} one of the {self.things} for {age:.1f} s")]
        return [Problem(ERROR, f"late: a result came {oldest:.1f} s after its message, error_age is {limit:g} s")]


def _words(error: BaseException) -> str:
    """An error in one line; its type comes first where no user can mend it."""
    if isinstance(error, Rejected) and error.__cause__ is not None:
        error = error.__cause__
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def main(name: str, make: Callable[[], WorkerNode[Any]], description: str, table: list[Parameter]) -> None:
    """The entry point of a program that is one such node."""
    runner.arguments(name, command_line(name, description, table))
    status = runner.run(name, make)
    if any(thread.name == WORKER for thread in threading.enumerate()):  # deep in a compiler: no way to end it in order
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
