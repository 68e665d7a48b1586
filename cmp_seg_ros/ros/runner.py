"""Runs one node as a program: environment, signals, one clear line and exit status 1 for what a user can mend."""

import gc
import logging
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any, Protocol

from cmp_seg_ros import memory
from cmp_seg_ros.errors import UserError, describe_os_error
from cmp_seg_ros.ros import environment

SPIN_TIMEOUT = 0.1  # seconds; how late a signal may be seen


class Program(Protocol):
    """A node with an end: `done` turns to its exit status when it has finished of itself."""

    done: int | None

    def configure(self) -> None:
        """Begin. Raises UserError."""

    def close(self) -> None:
        """Finish what is under way."""

    def destroy_node(self) -> None: ...

    def get_logger(self) -> Any: ...


class _Stop:
    """SIGINT and SIGTERM: break off while the node starts, afterwards leave the loop at its next turn."""

    def __init__(self) -> None:
        self.requested = self.spinning = False
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore(self) -> None:
        """Let signals do again what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, *_: Any) -> None:
        self.requested = True
        if not self.spinning:
            raise KeyboardInterrupt


class _ToRos(logging.Handler):
    """Python's log records as log lines of the node."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:  # on lines of their own: rclpy knows a place by its line and severity
            self._logger.warning(record.getMessage())
        else:
            self._logger.info(record.getMessage())


def arguments(name: str, parser: ArgumentParser) -> Namespace:
    """The program's own arguments, those of ROS left out. Ends the program with one line where ROS refuses its own."""
    from rclpy._rclpy_pybind11 import RCLError
    from rclpy.utilities import remove_ros_args

    try:
        own = remove_ros_args(sys.argv)[1:]
    except RCLError as error:
        sys.exit(f"{name}: error: {' '.join(str(error).split())}")
    return parser.parse_args(own)


def run(name: str, make: Callable[[], Program], args: list[str] | None = None) -> int:
    """Make the node and spin it until it is done or the process is told to stop. Returns the exit status.

    Args:
        name: of the program, for its log.
        make: makes the node, once ROS is initialised.
        args: command line with `--ros-args`; None takes that of the process.
    """
    environment.prepare()
    memory.keep_freed(32 << 20, 256 << 20)
    import rclpy
    from rclpy._rclpy_pybind11 import RCLError
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.logging import get_logger
    from rclpy.signals import SignalHandlerOptions

    stop = _Stop()
    node: Program | None = None
    executor: SingleThreadedExecutor | None = None
    logger, handler = logging.getLogger("cmp_seg_ros"), None
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = make()
        handler = _ToRos(node.get_logger())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        node.configure()
        executor = SingleThreadedExecutor()
        executor.add_node(node)  # type: ignore[arg-type]
        stop.spinning = True
        while not stop.requested and node.done is None:
            executor.spin_once(timeout_sec=SPIN_TIMEOUT)
    except (UserError, OSError, RCLError) as error:  # RCLError: arguments that ROS itself refuses
        said = describe_os_error(error) if isinstance(error, OSError) else " ".join(str(error).split())
        get_logger(name).fatal(said)  # as nodes say what goes wrong later
        return 1
    except KeyboardInterrupt:
        pass
    finally:
        stop.spinning = True  # let the end of the work be undisturbed
        if node is not None:
            node.close()
            logger.removeHandler(handler) if handler else None
            if executor is not None:
                executor.shutdown()  # it may wait for things of the node, which else outlive their context
            node.destroy_node()
        else:
            gc.collect()  # a half-made node, which only cycles hold, must go before its context
        rclpy.try_shutdown()
        stop.restore()
    return node.done or 0 if node is not None else 0
