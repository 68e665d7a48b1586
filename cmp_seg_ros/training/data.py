"""Loads the batches of a task in worker processes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from cmp_seg_ros import interrupts
from cmp_seg_ros.errors import UserError

Batch = TypeVar("Batch")

AHEAD = 4  # batches that each process loads in advance


@contextmanager
def loading(batch: Callable[[int], Batch], items: range, workers: int) -> Iterator[Iterator[Batch]]:
    """Yield an iterator over `batch(item)` for `items`, in order, computed by `workers` processes (0: by this one).

    The processes start here and end with the block. They ignore signals, which batch systems send to all processes of a
    job, so that the current training step can finish.
    """
    if not workers:
        yield map(batch, items)
        return
    loader: DataLoader[Any] = DataLoader(
        _Batches(batch),
        sampler=items,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD,
        worker_init_fn=_begin,
        generator=torch.Generator(),  # the default one is part of the run's state
    )
    iterator: Any = iter(loader)
    try:
        yield map(_raised, iterator)
    finally:
        iterator._shutdown_workers()  # a traceback would keep them alive, and the exit of the program would wait


class _Batches(Dataset[Any], Generic[Batch]):
    """Returns a UserError in place of a batch: raised in a worker, it would arrive as another exception."""

    def __init__(self, batch: Callable[[int], Batch]) -> None:
        self.batch = batch

    def __getitem__(self, item: int) -> Batch | UserError:
        try:
            return self.batch(item)
        except UserError as error:
            return error


def _begin(_: int) -> None:
    interrupts.block()


def _raised(item: Any) -> Any:
    if isinstance(item, UserError):
        raise item
    return item
