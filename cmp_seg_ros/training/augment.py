"""Augmentation of training scans, and their voxels with targets."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.datasets.frame import Returns
from cmp_seg_ros.scan import Float32, Float64, Int64, UInt8
from cmp_seg_ros.training.config import AugmentConfig
from cmp_seg_ros.waffleiron.config import PreprocessConfig
from cmp_seg_ros.waffleiron.preprocess import Voxels, prepare


def augment(
    scan: Returns, config: AugmentConfig, rng: np.random.Generator, limit: float | None = None
) -> tuple[Returns, Int64]:
    """Rotate, mirror and scale a scan at random, drop points, rings and intensities, and change the intensities.

    Args:
        limit: of intensities, as in the bundle's IntensityConfig.

    Returns:
        The new scan, and the row of the given one that each of its points comes from.
    """
    keep = np.ones(len(scan.xyz), dtype=bool)
    if rng.random() < config.drop_points:
        keep &= rng.random(len(keep)) < rng.uniform(0.5, 1.0)
    if rng.random() < config.drop_rings:
        keep &= scan.ring % 2 == rng.integers(2)
    if keep.sum() < 100:
        keep[:] = True
    xyz: npt.NDArray[Any] = scan.xyz[keep] @ _rotation(rng, config.tilt).T
    if rng.random() < config.mirror:
        xyz[:, 1] *= -1
    xyz *= rng.uniform(1 - config.scale, 1 + config.scale)
    xyz += rng.normal(0, config.jitter, xyz.shape)

    intensity: npt.NDArray[Any] = scan.intensity[keep]
    ring = scan.ring[keep]
    if rng.random() < config.response:
        intensity = random_response(xyz, ring, intensity, rng)
    intensity = _standard(intensity)
    if rng.random() < config.wrong_scale:
        intensity = intensity * 10 ** rng.uniform(-1.5, 1) + rng.normal(0, 3)
    else:
        intensity = intensity * np.exp(rng.normal(0, 0.2)) + rng.normal(0, 0.2)
    if limit is not None:
        intensity = intensity.clip(-limit, limit)
    if rng.random() < config.drop_intensity:
        intensity = np.zeros_like(intensity)
    changed = Returns(xyz.astype(np.float32), intensity.astype(np.float32), ring, scan.label[keep])
    return changed, np.flatnonzero(keep)


def random_response(
    xyz: npt.NDArray[np.floating], ring: UInt8, intensity: Float32, rng: np.random.Generator
) -> Float64:
    """(N,) intensities as some sensor in some world might give them: all of the simulator's, a part of it, or nothing.

    By chance the range, gains of rings, noise, and a field of reflectivity that has nothing to do with classes (waves
    and cubes in space) are added; and what comes of it is quantised, saturated, reordered into a long tail, or specked
    as by retroreflectors.
    """
    count = len(xyz)
    value = rng.choice([0.0, 0.3, 1.0]) * _standard(np.maximum(intensity, 0) ** rng.uniform(0.4, 1.5))
    if rng.random() < 0.5:
        value = value + rng.normal(0, 1.5) * _standard(np.log(np.linalg.norm(xyz, axis=1) + 0.2))
    if rng.random() < 0.4:  # waves
        for _ in range(int(rng.integers(1, 4))):
            way = rng.normal(size=3)
            way *= 2 * np.pi / (np.linalg.norm(way) * 10 ** rng.uniform(-0.5, 1))
            value = value + rng.uniform(0.2, 1.5) * np.sin(xyz @ way + rng.uniform(0, 2 * np.pi))
    if rng.random() < 0.45:  # cubes
        cell = np.floor(xyz @ _rotation(rng, 0.0).T / rng.uniform(0.3, 4)).astype(np.int64) % 32
        value = value + rng.uniform(0.3, 2) * rng.normal(size=(32, 32, 32))[cell[:, 0], cell[:, 1], cell[:, 2]]
    if rng.random() < 0.4:
        spread = rng.uniform(0.1, 0.9)
        value = (value - value.min()) * np.exp(rng.normal(0, spread, 256))[ring] + rng.normal(0, spread / 2, 256)[ring]
    if rng.random() < 0.5 or not value.std() > 0:
        noise = (rng.normal(size=count), rng.uniform(-1.7, 1.7, count), rng.exponential(size=count))
        value = value + 10 ** rng.uniform(-1, 0.7) * noise[int(rng.integers(3))]
    value = _standard(value)
    if rng.random() < 0.15:
        order = np.argsort(np.argsort(value, kind="stable"), kind="stable")
        value = (-np.log1p(-(order + 0.5) / (count + 1))) ** rng.uniform(0.6, 2)
    if rng.random() < 0.15:
        value = np.minimum(value, np.percentile(value, rng.uniform(2, 90)))
    if rng.random() < 0.3:
        step = max(float(np.ptp(value)), 1e-6) / (2 ** rng.uniform(1, 7) - 0.99)
        value = np.round(value / step) * step
    if rng.random() < 0.15:
        value = np.where(rng.random(count) < 10 ** rng.uniform(-3.5, -1.5), 10 ** rng.uniform(0.5, 3), value)
    return np.asarray(value, dtype=np.float64)


def _standard(value: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Normalise to mean 0 and standard deviation 1; a constant becomes 0."""
    return (value - value.mean()) / (float(value.std()) or 1.0)


def voxels_of(scan: Returns, preprocess: PreprocessConfig, limit: float | None) -> tuple[Voxels, Int64]:
    """Voxels of a scan with normalised intensities, and the row of each voxel's representative point.

    Args:
        limit: as for `augment`.
    """
    intensity = _standard(scan.intensity).astype(np.float32)
    voxels, _ = prepare(scan.xyz, intensity if limit is None else intensity.clip(-limit, limit), preprocess)
    return voxels, voxels.points


def augmented_voxels(
    scan: Returns, preprocess: PreprocessConfig, limit: float | None, config: AugmentConfig, rng: np.random.Generator
) -> tuple[Voxels, Int64]:
    """As `voxels_of`, of the augmented scan; the rows are those of the given one."""
    scan, rows = augment(scan, config, rng, limit)
    order = rng.permutation(len(rows))  # so that any point may represent its voxel
    xyz, intensity, rows = scan.xyz[order], scan.intensity[order], rows[order]
    if rng.random() < config.coarse_voxels:
        size = preprocess.voxel_size * rng.uniform(1, 2)
        preprocess = preprocess.model_copy(update={"voxel_size": size})
    voxels, _ = prepare(xyz, intensity, preprocess)
    if len(voxels) > config.max_voxels:
        distance = np.linalg.norm(voxels.xyz - voxels.xyz[rng.integers(len(voxels))], axis=1)
        chosen = voxels.points[np.argpartition(distance, config.max_voxels)[: config.max_voxels]]
        xyz, intensity, rows = xyz[chosen], intensity[chosen], rows[chosen]
        voxels, _ = prepare(xyz, intensity, preprocess)
    return voxels, rows[voxels.points]


def _rotation(rng: np.random.Generator, tilt: float) -> Float32:
    """(3, 3) random rotation: any yaw, small roll and pitch."""
    yaw, (roll, pitch) = rng.uniform(-np.pi, np.pi), rng.normal(0, tilt, 2)
    about_z = _axis_rotation(2, yaw)
    return (_axis_rotation(0, roll) @ _axis_rotation(1, pitch) @ about_z).astype(np.float32)


def _axis_rotation(axis: int, angle: float) -> Float64:
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    rotation[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
    return rotation
