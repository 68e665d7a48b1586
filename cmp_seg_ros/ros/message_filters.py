"""Stands in for message_filters: pairs (triples, ...) of messages by their stamps."""

import itertools
import threading
from collections.abc import Callable
from typing import Any

from rclpy.time import Time


class SimpleFilter:
    """A source of messages, and whoever wants to have them."""

    def __init__(self) -> None:
        self.callbacks: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def registerCallback(self, cb: Callable[..., None], *args: Any) -> int:
        """Have `cb` called with each message, or set of them, and `args`. Returns the number of the connection."""
        self.callbacks.append((cb, args))
        return len(self.callbacks) - 1

    def signalMessage(self, *msg: Any) -> None:
        """Hand on a message, or a set of them."""
        for cb, args in self.callbacks:
            cb(*msg, *args)


class ApproximateTimeSynchronizer(SimpleFilter):
    """Hands on one message of each filter where their stamps are closer than `slop`; each message at most once.

    Args:
        fs: the filters.
        queue_size: messages of each that are remembered.
        slop: seconds.
    """

    def __init__(self, fs: list[Any], queue_size: int, slop: float) -> None:
        super().__init__()
        self.queue_size, self.slop = queue_size, round(slop * 1e9)
        self.queues: list[dict[int, Any]] = [{} for _ in fs]
        self.lock = threading.Lock()
        for index, source in enumerate(fs):
            source.registerCallback(self.add, self.queues[index], index)

    def add(self, msg: Any, my_queue: dict[int, Any], my_queue_index: int) -> None:
        """Take a message, and hand on the set that it completes with the others that are nearest to it."""
        stamp = msg.header.stamp
        now = int(stamp.nanoseconds if hasattr(stamp, "nanoseconds") else Time.from_msg(stamp).nanoseconds)
        with self.lock:
            my_queue[now] = msg
            while len(my_queue) > self.queue_size:
                del my_queue[min(my_queue)]
            near = [
                [now] if index == my_queue_index else sorted(queue, key=lambda other: abs(other - now))
                for index, queue in enumerate(self.queues)
            ]
            complete = (stamps for stamps in itertools.product(*near) if max(stamps) - min(stamps) < self.slop)
            if now in my_queue and (stamps := next(complete, None)) is not None:
                found = [queue.pop(at) for queue, at in zip(self.queues, stamps, strict=True)]
                self.signalMessage(*found)
