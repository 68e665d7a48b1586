"""Random changes that make one simulated scan many, and its voxels with their targets."""

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.scan import Float32, UInt8
from cmp_seg_ros.training.cache import TrainingScan
from cmp_seg_ros.training.config import AugmentConfig
from cmp_seg_ros.waffleiron.config import PreprocessConfig
from cmp_seg_ros.waffleiron.preprocess import Voxels, prepare


def augment(scan: TrainingScan, config: AugmentConfig, rng: np.random.Generator) -> TrainingScan:
    """Turn, mirror, scale and tilt a scan; drop points, rings and intensities; shift and stretch intensities."""
    keep = np.ones(len(scan.xyz), dtype=bool)
    if rng.random() < config.drop_points:
        keep &= rng.random(len(keep)) < rng.uniform(0.5, 1.0)
    if rng.random() < config.drop_rings:
        keep &= scan.ring % 2 == rng.integers(2)
    if keep.sum() < 100:
        keep[:] = True
    xyz = scan.xyz[keep] @ _rotation(rng, config.tilt).T
    if rng.random() < 0.5:
        xyz[:, 1] *= -1
    xyz *= rng.uniform(1 - config.scale, 1 + config.scale)
    xyz += rng.normal(0, config.jitter, xyz.shape)

    intensity = scan.intensity[keep]
    spread = float(intensity.std()) or 1.0
    intensity = (intensity - intensity.mean()) / spread
    intensity = intensity * np.exp(rng.normal(0, 0.2)) + rng.normal(0, 0.2)
    if rng.random() < config.drop_intensity:
        intensity[:] = 0
    return TrainingScan(xyz.astype(np.float32), intensity.astype(np.float32), scan.ring[keep], scan.label[keep])


def voxels_and_targets(
    scan: TrainingScan, preprocess: PreprocessConfig, config: AugmentConfig | None, rng: np.random.Generator
) -> tuple[Voxels, UInt8]:
    """The network's input for a scan and the label of each voxel's representative. Without `config`, all voxels."""
    xyz, intensity, label = scan.xyz, scan.intensity, scan.label
    if config is not None:
        order = rng.permutation(len(xyz))  # so that any point may represent its voxel
        xyz, intensity, label = xyz[order], intensity[order], label[order]
        if rng.random() < config.coarse_voxels:
            size = preprocess.voxel_size * rng.uniform(1, 2)
            preprocess = preprocess.model_copy(update={"voxel_size": size})
    voxels, _ = prepare(xyz, intensity, preprocess)
    if config is not None and len(voxels) > config.max_voxels:
        distance = np.linalg.norm(voxels.xyz - voxels.xyz[rng.integers(len(voxels))], axis=1)
        chosen = voxels.points[np.argpartition(distance, config.max_voxels)[: config.max_voxels]]
        xyz, intensity, label = xyz[chosen], intensity[chosen], label[chosen]
        voxels, _ = prepare(xyz, intensity, preprocess)
    return voxels, label[voxels.points]


def standardised(scan: TrainingScan) -> TrainingScan:
    """A validation scan: intensities in the scale of their own scan, all else as it is."""
    spread = float(scan.intensity.std()) or 1.0
    return scan._replace(intensity=((scan.intensity - scan.intensity.mean()) / spread).astype(np.float32))


def _rotation(rng: np.random.Generator, tilt: float) -> Float32:
    """Any yaw, and a little roll and pitch."""
    yaw, (roll, pitch) = rng.uniform(-np.pi, np.pi), rng.normal(0, tilt, 2)
    about_z = _axis_rotation(2, yaw)
    return (_axis_rotation(0, roll) @ _axis_rotation(1, pitch) @ about_z).astype(np.float32)


def _axis_rotation(axis: int, angle: float) -> npt.NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    rotation[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
    return rotation
