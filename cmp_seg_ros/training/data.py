"""Batches of a training run.

Batch i is a function of the configuration and i, so a resumed run sees what it would have seen.
"""

import os
import signal
from collections.abc import Iterator
from threading import Thread

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.training.augment import augment, standardised, voxels_and_targets
from cmp_seg_ros.training.cache import ScanCache
from cmp_seg_ros.training.config import TrainConfig
from cmp_seg_ros.waffleiron.batch import Batch, collate

TrainingItem = tuple[Batch, Tensor]  # B scans of M voxels in all, and (M,) int64 targets


class TrainingBatches(Dataset[TrainingItem | UserError]):
    """Augmented batches without end, of random scans from the cache.

    What a user can mend comes in a batch's place: raised in a process of the loader, it would lose its one line.
    """

    def __init__(self, config: TrainConfig, cache: ScanCache) -> None:
        self.config = config
        self.cache = cache
        self.seeds = config.data.seeds

    def __getitem__(self, item: int) -> TrainingItem | UserError:
        try:
            return self._batch(item)
        except UserError as error:
            return error

    def _batch(self, item: int) -> TrainingItem:
        config = self.config
        rng = np.random.default_rng([config.seed, item])
        scans = []
        for _ in range(config.batch):
            building = self.seeds[int(rng.integers(len(self.seeds)))]
            scan = self.cache.load(building, int(rng.integers(config.data.scans_per_building)))
            scan = augment(scan, config.augment, rng, config.intensity.limit)
            scans.append(voxels_and_targets(scan, config.preprocess, config.augment, rng))
        batch = collate([voxels for voxels, _ in scans], config.preprocess.grids)
        return batch, torch.from_numpy(np.concatenate([target for _, target in scans]).astype(np.int64))


def training_batches(config: TrainConfig, cache: ScanCache, start: int, workers: int) -> Iterator[TrainingItem]:
    """Batches `start`, `start` + 1, ... made by `workers` processes, in order."""
    endless = range(start, start + 1_000_000_000)
    loader = DataLoader(
        TrainingBatches(config, cache),
        sampler=endless,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_pass_over_sigterm,
        generator=torch.Generator(),  # else it draws from the generator that a resumed run goes on with
    )
    return map(_raised, iter(loader))  # the workers start here


def _pass_over_sigterm(_: int) -> None:
    """Batch systems send it to every process of a job: the training saves then, and needs its workers for that step.

    From the parent it counts: an interpreter that ends sends it to its workers, and waits for them.
    """

    def end_with_parent() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    Thread(target=end_with_parent, daemon=True).start()


def _raised(item: TrainingItem | UserError) -> TrainingItem:
    if isinstance(item, UserError):
        raise item
    return item


def validation_batches(config: TrainConfig, cache: ScanCache) -> list[TrainingItem]:
    """One scan a batch, as it is."""
    rng = np.random.default_rng(config.seed)
    items = []
    for building in range(config.data.validation_buildings):
        for index in range(cache.scans_per_building):
            scan = standardised(
                cache.load(config.data.first_validation_building + building, index), config.intensity.limit
            )
            voxels, target = voxels_and_targets(scan, config.preprocess, None, rng)
            items.append((collate([voxels], config.preprocess.grids), torch.from_numpy(target.astype(np.int64))))
    return items
