"""Plays any bag (ROS 1, ROS 2 sqlite3, mcap) over DDS, and accounts for every message.

    bag_player BAG --ros-args -p rate:=2.0 -r /lidar/points:=/points

The messages' header stamps become those of the playing: stamps and schedule are shifted alike, so that the age of a
scan can be measured. At the end, when all is acknowledged, one line of JSON tells what was sent and how late.
Exit status 1 where the bag is damaged, nobody subscribes in time, or a message is not acknowledged.
"""

import json
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message
from rosgraph_msgs.msg import Clock

from cmp_seg_ros.errors import UserError, describe
from cmp_seg_ros.messages import cdr
from cmp_seg_ros.ros import qos, runner
from cmp_seg_ros.ros.diagnostics import percentiles
from cmp_seg_ros.ros.parameters import Parameter, Parameters, command_line

T = TypeVar("T")

NAME = "bag_player"
PARAMETERS = [
    Parameter("bag", "", "The bag: a rosbag2 folder, or a .bag, .mcap or .db3 file; or give it as the first argument"),
    Parameter("topics", "", "Topics of the bag to play, separated by commas; empty: all whose types are installed"),
    Parameter("rate", 1.0, "How many times as fast as recorded", (0.001, 1000.0)),
    Parameter("loop", False, "Start again at the end; stamps go on growing"),
    Parameter("start_time_ns", 0, "Wall time, in nanoseconds, that the bag's first message is sent at; 0: at once"),
    Parameter("keep_stamps", False, "Leave the header stamps as recorded, and publish /clock"),
    Parameter("wait_for_subscribers", 0.0, "Seconds to wait for subscribers before playing; 0: do not", (0.0, 1e6)),
    Parameter("wait_for_topics", "", "Topics of the bag that need a subscriber then; empty: all that are played"),
    Parameter("acknowledge_timeout", 10.0, "Seconds to wait at the end until all is acknowledged", (0.0, 1e6)),
]
DEPTH = 50  # messages of a topic that wait for slow subscribers
PAUSE = 100_000_000  # ns between the end of a bag and its next round
CLOCK_PERIOD = 0.01  # seconds
LATCHED = ("/tf_static", "/robot_description")


class BagPlayer(Node):
    """The node. `done` is its exit status once it has played. Raises UserError for what cannot be played.

    Args:
        bag: path that takes the place of the parameter.
    """

    def __init__(self, bag: str = "") -> None:
        from cmp_seg_ros.datasets.bag import Bag, bag_of

        super().__init__(NAME)
        self.done: int | None = None
        p = Parameters(self, PARAMETERS)
        self.rate, self.loop, self.keep_stamps = p["rate"], p["loop"], p["keep_stamps"]
        self.start_time, self.patience, self.last_patience = (
            p[name] for name in ("start_time_ns", "wait_for_subscribers", "acknowledge_timeout")
        )
        if not (bag or p["bag"]):
            raise UserError("no bag is given: bag_player BAG, or -p bag:=BAG")
        self.bag = Bag(bag_of(Path(bag or p["bag"]).expanduser()))
        self.senders = self._advertise(self._known(p["topics"]))
        self.awaited = self._known(p["wait_for_topics"]) or list(self.senders)
        self.clock_publisher = self.create_publisher(Clock, "/clock", qos.OUTPUT) if self.keep_stamps else None

        self.sent: Counter[str] = Counter()
        self.lateness_ms: list[float] = []
        self.first = 0  # ns, when the bag's first message was recorded
        self.offset = 0  # ns from then to the time of its sending
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="player")

    def configure(self) -> None:
        """Begin to play."""
        self._thread.start()

    def _known(self, topics: str) -> list[str]:
        """Topics separated by commas, all of the bag, in its own spelling. Raises UserError."""
        wanted = {topic: self.bag.named(topic) for part in topics.split(",") if (topic := part.strip())}
        unknown = [topic for topic, name in wanted.items() if name is None]
        if unknown:
            raise UserError(
                f"topic {', '.join(unknown)} is not in bag {self.bag.path}; it has: {', '.join(self.bag.topics)}"
            )
        return [name for name in wanted.values() if name is not None]

    def _advertise(self, wanted: list[str]) -> "dict[str, Sender]":
        """A sender for each topic. Types that are not installed are left out, unless they were asked for."""
        senders, missing = {}, []
        for topic in wanted or self.bag.topics:
            message_type = self.bag.topics[topic].type
            try:
                package, _, name = message_type.split("/")
                senders[topic] = Sender(self, getattr(import_module(f"{package}.msg"), name), topic)
            except (ImportError, AttributeError, ValueError):
                missing.append(f"{topic} ({message_type})")
        if missing and (wanted or not senders):
            raise UserError(f"the message types of {', '.join(missing)} are not installed; install their packages")
        if missing:
            self.get_logger().warning(f"not played, since their message types are not installed: {', '.join(missing)}")
        return senders

    def _run(self) -> None:
        try:
            self._wait_for_subscribers()
            self._play()
            acknowledged = self._acknowledged()
            for note in self.bag.notes:
                self.get_logger().warning(note)
            for problem in self.bag.problems:
                self.get_logger().error(problem)
            self._report(acknowledged)
            self.done = int(bool(len(self.bag.problems)) or not acknowledged)
        except Exception as error:  # whatever it is, the process must not go on without its worker
            self.get_logger().fatal(describe(error))
            self.done = 1

    def _wait_for_subscribers(self) -> None:
        end = time.monotonic() + self.patience
        awaited = [self.senders[topic] for topic in self.awaited if topic in self.senders]
        while self.patience and not self._stop.is_set():
            lonely = [sender.topic for sender in awaited if not sender.publisher.get_subscription_count()]
            if not lonely:
                return
            if time.monotonic() > end:
                raise UserError(f"nobody has subscribed to {', '.join(lonely)} within {self.patience:g} s")
            self._stop.wait(0.02)

    def _play(self) -> None:
        """Send every message when its time has come."""
        due = start = self.start_time
        first = None
        while not self._stop.is_set():
            for message in ahead(self.bag.serialised(list(self.senders))):
                if first is None:
                    self.first = first = message.time
                    start = start or time.time_ns()  # not before the bag is open and read
                    self.offset = start - first
                due = start + round((message.time - first) / self.rate)
                self._wait_until(due, message.time)
                if self._stop.is_set():
                    return
                self.lateness_ms.append((time.time_ns() - due) * 1e-6)
                shift = None if self.keep_stamps else (first, start, self.rate)
                self.senders[message.topic].send(message.data, shift)
                self.sent[self.senders[message.topic].topic] += 1
            if not self.loop or first is None:
                return
            start = due + PAUSE

    def _wait_until(self, due: int, recorded: int) -> None:
        """Wait for a wall time in ns; meanwhile, where stamps are those of recording, let /clock go on."""
        while (left := (due - time.time_ns()) * 1e-9) > 0 and not self._stop.is_set():
            self._tick(recorded - round(left * self.rate * 1e9))
            self._stop.wait(min(left, CLOCK_PERIOD) if self.clock_publisher else left)
        self._tick(recorded)

    def _tick(self, now: int) -> None:
        if self.clock_publisher:
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(max(0, now), 1_000_000_000)
            self.clock_publisher.publish(message)

    def _acknowledged(self) -> bool:
        """Whether all subscribers have everything."""
        if self._stop.is_set():
            return True  # nobody waits for the rest
        end = time.monotonic() + self.last_patience
        late = [
            sender.topic
            for sender in self.senders.values()
            if not sender.publisher.wait_for_all_acked(Duration(seconds=max(0.0, end - time.monotonic())))
        ]
        if late:
            self.get_logger().error(f"not all messages on {', '.join(late)} were acknowledged")
        return not late

    def _report(self, acknowledged: bool) -> None:
        late = percentiles(self.lateness_ms) | {"max": max(self.lateness_ms)} if self.lateness_ms else {}
        report = {
            "messages": dict(self.sent),
            "first_ns": self.first,
            "offset_ns": self.offset,
            "lateness_ms": {name: round(value, 3) for name, value in late.items()},
            "acknowledged": acknowledged,
            "problems": list(self.bag.problems),
        }
        print(json.dumps(report), flush=True)

    def close(self) -> None:
        """Stop playing, and report."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()


class Sender:
    """Sends the serialised messages of one topic."""

    def __init__(self, node: Node, message: type, topic: str) -> None:
        self.message = message
        latched = topic.endswith(LATCHED)
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        self.publisher: Publisher[Any] = node.create_publisher(
            message, topic, QoSProfile(depth=DEPTH, durability=durability)
        )
        self.topic = self.publisher.topic_name  # after remapping
        fields: dict[str, str] = message.get_fields_and_field_types()  # type: ignore[attr-defined]
        self.has_header = next(iter(fields.values()), "") == "std_msgs/Header"
        self.has_transforms = fields.get("transforms") == "sequence<geometry_msgs/TransformStamped>"

    def send(self, data: bytes, shift: tuple[int, int, float] | None) -> None:
        """Publish a message (CDR). `shift`: (first, start, rate) of `shifted` for its stamps, or None to leave them."""
        if shift and self.has_header:
            data = cdr.with_stamp(data, shifted(cdr.stamp_ns(data), *shift))
        elif shift and self.has_transforms:
            message: Any = deserialize_message(data, self.message)
            for transform in message.transforms:
                stamp = transform.header.stamp
                now = shifted(stamp.sec * 1_000_000_000 + stamp.nanosec, *shift)
                stamp.sec, stamp.nanosec = divmod(now, 1_000_000_000)
            self.publisher.publish(message)
            return
        self.publisher.publish(data)


def ahead(messages: Generator[T, None, None], count: int = 32) -> Iterator[T]:
    """The messages, read in another thread ahead of their use: a chunk of a bag may take long to read."""
    end: Any = object()
    with ThreadPoolExecutor(1) as reader:
        try:
            coming = deque(reader.submit(next, messages, end) for _ in range(count))
            while (message := coming.popleft().result()) is not end:
                coming.append(reader.submit(next, messages, end))
                yield message
        finally:
            reader.submit(messages.close)  # where it was opened, as sqlite wants it
            for future in coming:
                future.cancel()


def shifted(stamp: int, first: int, start: int, rate: float) -> int:
    """A stamp in ns, as if the bag had been recorded from `start` instead of `first`; 0 (no stamp) stays."""
    return start + round((stamp - first) / rate) if stamp else 0


def main() -> None:
    """Entry point."""
    parser = command_line(NAME, __doc__ or "", PARAMETERS)
    parser.add_argument("bag", nargs="?", default="", help="rosbag2 folder, or .bag, .mcap or .db3 file")
    bag = runner.arguments(NAME, parser).bag
    sys.exit(runner.run(NAME, lambda: BagPlayer(bag)))


if __name__ == "__main__":
    main()
