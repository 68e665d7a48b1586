"""Processes that make batches: they end with the training, whatever it ends with."""

import multiprocessing

import pytest

from cmp_seg_ros.training.data import loading


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order(workers: int) -> None:
    with loading(abs, range(-3, 100, 2), workers) as batches:
        assert [next(batches) for _ in range(5)] == [3, 1, 1, 3, 5]
    assert not multiprocessing.active_children()


def fail_with_workers_at_work() -> None:
    with loading(abs, range(1_000_000), workers=1) as batches:
        next(batches)
        raise ValueError


def test_a_process_ends_though_its_workers_are_at_work() -> None:
    process = multiprocessing.get_context("fork").Process(target=fail_with_workers_at_work)
    process.start()
    process.join(240)
    try:
        assert process.exitcode == 1
    finally:
        process.kill()
