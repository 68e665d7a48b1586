"""The configuration of a training run, as read from a YAML file in config/training/."""

import math
from pathlib import Path
from typing import Literal

from pydantic import Field

from cmp_seg_ros.configuration import Strict
from cmp_seg_ros.datasets import scan_cache

RESOLUTION = 100_000  # of the cosine, which depends on progress, not on steps


class DataConfig(Strict):
    """Simulated scans. Training uses `buildings` seeds from `first_building`, and `second_world` seeds of the second
    world (simulation/building.py)."""

    first_building: int = Field(default=1_000_000, ge=0)
    buildings: int = Field(default=300, gt=0)
    first_of_second_world: int = Field(default=101_000_000, ge=0)
    second_world: int = Field(default=0, ge=0)
    scans_per_building: int = Field(default=8, gt=0)
    first_validation_building: int = Field(default=10_000_000, ge=0)
    validation_buildings: int = Field(default=12, gt=0)
    validation_sensor: str = "os1-16"
    first_calibration_building: int = Field(default=11_000_000, ge=0)
    calibration_buildings: int = Field(default=24, ge=0)  # 0: the bundle is not calibrated

    @property
    def seeds(self) -> list[int]:
        """Of all training buildings."""
        first, second = self.first_building, self.first_of_second_world
        return [*range(first, first + self.buildings), *range(second, second + self.second_world)]

    def training(self, folder: Path) -> scan_cache.DataSet:
        """Scans of random lidars, cached in the folder."""
        return scan_cache.DataSet(folder, self.seeds, self.scans_per_building)

    def validation(self, folder: Path) -> scan_cache.DataSet:
        """Two scans per building of one lidar, cached in the folder."""
        first = self.first_validation_building
        return scan_cache.DataSet(folder, range(first, first + self.validation_buildings), 2, self.validation_sensor)

    def calibration(self, folder: Path) -> scan_cache.DataSet:
        """Four scans per building of random lidars, cached in the folder; half of the second world if that is used."""
        first = self.first_calibration_building
        second = self.calibration_buildings // 2 if self.second_world else 0
        other = first + self.first_of_second_world - self.first_building
        seeds = [*range(first, first + self.calibration_buildings - second), *range(other, other + second)]
        return scan_cache.DataSet(folder, seeds, 4)


class AugmentConfig(Strict):
    """Random changes of a training scan: probabilities and half ranges."""

    tilt: float = Field(default=0.03, ge=0)  # rad, standard deviation of roll and pitch, as of a calibration's error
    mirror: float = Field(default=0.5, ge=0, le=1)  # probability
    scale: float = Field(default=0.05, ge=0, lt=1)
    jitter: float = Field(default=0.01, ge=0)  # m, standard deviation
    drop_points: float = Field(default=0.5, ge=0, le=1)  # probability; then up to half of the points are dropped
    drop_rings: float = Field(default=0.2, ge=0, le=1)  # probability; then every second ring is dropped
    drop_intensity: float = Field(default=0.2, ge=0, le=1)  # probability
    response: float = Field(default=0.0, ge=0, le=1)  # probability; then intensities come by another, random response
    wrong_scale: float = Field(default=0.0, ge=0, le=1)  # probability; then their mean and deviation are far off
    coarse_voxels: float = Field(default=0.5, ge=0, le=1)  # probability; then voxels are up to twice as large
    max_voxels: int = Field(default=8000, gt=1)  # the nearest to a random one are kept


class OptimiserConfig(Strict):
    """AdamW, with a linear warm-up and a cosine to `minimum` times the learning rate, or ScaLR+'s inverse root."""

    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=3e-3, ge=0)
    warmup: float = Field(default=0.04, ge=0, lt=1)  # fraction of the run
    minimum: float = Field(default=0.005, ge=0, le=1)
    schedule: Literal["cosine", "inverse_root"] = "cosine"
    timescale: float = Field(default=0.45 / 65, gt=0)  # of the inverse root, fraction of the run
    cooldown: float = Field(default=63 / 65, gt=0, lt=1)  # where the inverse root ends and a line to 0 begins, fraction

    def factor(self, fraction: float) -> float:
        """Factor on the learning rate when this fraction of the run is done."""
        if self.schedule == "inverse_root":
            return warmup_rsqrt(fraction, self.warmup, self.timescale, self.cooldown, 1.0)
        warmup = max(1, round(RESOLUTION * self.warmup))
        return warmup_cosine(max(1, round(RESOLUTION * fraction)), warmup, RESOLUTION, self.minimum)


class TrainConfig(Strict):
    """Settings of the training loop; each task adds its own. A run ends after `steps`, or `hours` if that is first."""

    name: str
    task: str = "segmentation"  # a file in training/tasks/
    seed: int = Field(default=0, ge=0, lt=2**63)
    optimiser: OptimiserConfig = OptimiserConfig()
    steps: int = Field(gt=0)
    hours: float | None = Field(default=None, gt=0)
    accumulate: int = Field(default=1, gt=0)  # batches per step, on each device
    validate_every: int = Field(default=500, gt=0)  # steps
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU if there is one
    devices: int = Field(default=1, gt=0)  # number of GPUs, or of processes on the CPU
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = (
        "auto"  # auto: ddp if there are several devices
    )
    precision: Literal["auto", "32-true", "bf16-mixed", "64-true"] = "auto"  # auto: bf16 if the hardware supports it


def warmup_cosine(iteration: int, warmup: int, total: int, minimum: float) -> float:
    """Factor on the learning rate: linear from 0 to 1 over `warmup` iterations, then a cosine down to `minimum`.

    WaffleIron and ScaLR.

    Args:
        iteration: 0..total; later iterations stay at `minimum`.
        minimum: final factor, 0..1.
    """
    if iteration < warmup:
        return iteration / warmup
    progress = min((iteration - warmup) / max(total - warmup, 1), 1.0)
    return minimum + 0.5 * (1 - minimum) * (1 + math.cos(math.pi * progress))


def warmup_rsqrt(iteration: float, warmup: float, timescale: float, cooldown: float, total: float) -> float:
    """Factor on the learning rate: linear over `warmup`, then 1 / sqrt, then linear to 0 from `cooldown` to `total`.

    ScaLR+ (branch scalr_plus). As published, the line of the cool-down begins where the curve would be without its
    warm-up, a jump of one per cent.

    Args:
        iteration, warmup, timescale, cooldown, total: in the same unit, iterations or epochs.
    """
    if iteration < warmup:
        return iteration / warmup
    if iteration < cooldown:
        return 1 / math.sqrt(1 + (iteration - warmup) / timescale)
    left = max(0.0, (total - iteration) / (total - cooldown))
    return left / math.sqrt(1 + cooldown / timescale)
