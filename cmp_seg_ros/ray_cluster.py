"""Parallel map over the machines of a Ray cluster (https://docs.ray.io); without a cluster, over processes of Ray here.

Every machine needs this package, and the data and the output folder at the same paths (NFS, say).
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from socket import create_connection
from typing import Any, TypeVar

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.workers import AHEAD, RETRIES

HOST_PORT = re.compile(r"(?:ray://)?([^/:]+):(\d+)")
PATIENCE = 5.0  # seconds for an address to answer

T = TypeVar("T")
R = TypeVar("R")


def ray_map(function: Callable[[T], R], items: Iterable[T], processes: int | None = None) -> Iterator[R]:
    """Yield `function(item)` for each of `items`, as they end; the function may be called again.

    Ray gives the items of a worker that was killed, or of a machine that was lost, to others.

    Args:
        processes: of a cluster that is started here if none is at $RAY_ADDRESS; None: one per processor.

    Raises:
        UserError: Ray is not installed, or cannot be reached; a worker raised it; workers are killed again and again.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError('--runner ray needs Ray: pip install "ray>=2.9"') from error
    started = not ray.is_initialized()
    if started:
        _join(processes)
    try:
        remote: Any = ray.remote(lambda item: function(item))  # Ray takes no partial functions
        most = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        pending: list[Any] = []
        for item in items:
            pending.append(remote.options(num_cpus=1, max_retries=RETRIES).remote(item))
            while len(pending) >= most:
                yield _next(pending)
        while pending:
            yield _next(pending)
    finally:
        if started:
            ray.shutdown()


def _join(processes: int | None) -> None:
    """Join the cluster at $RAY_ADDRESS, or start one here. Raises UserError."""
    import ray

    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # the first error is told, and ends the others' work
    address = os.environ.get("RAY_ADDRESS")
    where = f"the Ray cluster at {address} cannot be reached" if address else "Ray cannot be started"
    here: dict[str, Any] = {}
    if not address:
        here = {"num_cpus": processes or len(os.sched_getaffinity(0)), "include_dashboard": False}
    try:
        if found := HOST_PORT.fullmatch(address or ""):  # Ray itself would try for minutes
            create_connection((found[1], int(found[2])), PATIENCE).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **here)
    except Exception as error:  # Ray raises many kinds, a bare Exception among them
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: {why}; see `ray status`, or leave out --runner") from error


def _next(pending: list[Any]) -> Any:
    """Result of the first that ends, which is removed. Raises UserError."""
    import ray

    (ready,), rest = ray.wait(pending, num_returns=1)
    pending[:] = rest
    try:
        return ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None
    except ray.exceptions.RayError as error:  # what is left after the retries
        raise UserError(f"workers of Ray are killed again and again: {' '.join(str(error).split())[:200]}") from error
