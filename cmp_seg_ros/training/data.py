"""Batches of a task, made ahead by processes of their own.

Batch i is a function of the configuration and i, so a resumed run sees what it would have seen.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from cmp_seg_ros import interrupts
from cmp_seg_ros.errors import UserError

Batch = TypeVar("Batch")

AHEAD = 4  # batches of each process that wait to be taken


@contextmanager
def loading(batch: Callable[[int], Batch], items: range, workers: int) -> Iterator[Iterator[Batch]]:
    """The batches of those numbers, in order, made by `workers` processes; without any, when they are taken.

    The processes begin here and end with the context. They pass over signals, which batch systems send to all: what
    the training has begun needs its next batches.
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
        generator=torch.Generator(),  # else it draws from the generator that a resumed run goes on with
    )
    iterator: Any = iter(loader)
    try:
        yield map(_raised, iterator)
    finally:
        iterator._shutdown_workers()  # else an exception's traceback keeps them, and the end of the program waits


class _Batches(Dataset[Any], Generic[Batch]):
    """What a user can mend comes in a batch's place: raised in a process of the loader, it would lose its one line."""

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
