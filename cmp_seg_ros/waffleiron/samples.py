"""Sample scans for checking engines: a room, a corridor and a hall made of boxes, by ray casting."""

from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
from llvmlite import __version__ as llvm_version

from cmp_seg_ros.digest import digest
from cmp_seg_ros.kernels.launch import cache_folder
from cmp_seg_ros.rate_keeper import COARSEST
from cmp_seg_ros.scan import Float32
from cmp_seg_ros.waffleiron import preprocess as preparation
from cmp_seg_ros.waffleiron.config import PreprocessConfig
from cmp_seg_ros.waffleiron.preprocess import Voxels, prepare

Box = tuple[tuple[float, float, float], tuple[float, float, float]]  # minimum and maximum x, y, z in metres


@dataclass(frozen=True)
class _Scene:
    """A scene of boxes around a lidar at its origin.

    Args:
        hollow: walls, floor and ceiling, as boxes seen from inside.
        boxes: objects.
        beams: number of beams, and elevation of the highest and lowest in degrees.
        yaw: of the lidar, in radians.
    """

    hollow: Box
    boxes: list[Box]
    beams: tuple[int, float]
    yaw: float


_SCENES = {
    "room": _Scene(
        ((-3.6, -2.7, -0.9), (5.1, 4.2, 1.7)),
        [
            ((1.2, 0.8, -0.2), (2.8, 1.7, -0.15)),  # a table and two of its legs
            ((1.25, 0.85, -0.9), (1.32, 0.92, -0.2)),
            ((2.68, 1.58, -0.9), (2.75, 1.65, -0.2)),
            ((-3.6, 1.0, -0.9), (-3.0, 2.2, 1.1)),  # a cupboard
            ((0.5, -2.7, -0.9), (2.6, -1.9, -0.1)),  # a sofa
            ((-1.6, -1.9, -0.9), (-1.2, -1.4, 0.85)),  # a person
            ((5.05, -0.5, -0.9), (5.1, 0.5, 1.2)),  # a door
        ],
        (16, 16.0),
        0.0,
    ),
    "corridor": _Scene(
        ((-14.0, -1.1, -0.8), (9.0, 1.2, 1.7)),
        [
            *(((x, 1.17, -0.8), (x + 0.9, 1.2, 1.25)) for x in (-11.5, -7.0, -2.5, 2.0, 6.5)),  # doors
            *(((x, -1.1, -0.8), (x + 0.9, -1.07, 1.25)) for x in (-9.0, 4.5)),
            ((-5.5, -1.1, -0.8), (-4.3, -0.7, -0.35)),  # a bench
            ((1.0, -1.1, -0.8), (1.5, -0.65, 0.9)),  # a locker
            ((3.2, -0.3, -0.8), (3.5, 0.2, 0.0)),  # a person's legs, body and head
            ((3.15, -0.35, 0.0), (3.5, 0.25, 0.6)),
            ((3.22, -0.15, 0.6), (3.42, 0.05, 0.9)),
        ],
        (32, 22.0),
        0.25,
    ),
    "hall": _Scene(
        ((-9.0, -7.0, -1.0), (8.0, 10.0, 3.2)),
        [
            *(((x, y, -1.0), (x + 0.5, y + 0.5, 3.2)) for x in (-5.0, 3.5) for y in (-3.0, 5.0)),  # columns
            *(((x, 1.5, -0.3), (x + 1.6, 2.3, -0.25)) for x in (-3.0, 0.5)),  # tables and their feet
            *(((x + 0.7, 1.8, -1.0), (x + 0.9, 2.0, -0.3)) for x in (-3.0, 0.5)),
            *(((x, 2.6, -1.0), (x + 0.45, 3.05, -0.1)) for x in (-2.6, 0.9)),  # chairs
            ((1.8, -2.2, -1.0), (2.1, -1.75, -0.1)),  # a person nearby, another far away
            ((1.75, -2.25, -0.1), (2.15, -1.7, 0.45)),
            ((1.85, -2.08, 0.45), (2.05, -1.88, 0.75)),
            ((-4.2, -5.0, -1.0), (-3.8, -4.5, 0.7)),
            ((-9.0, -2.0, -0.2), (-8.96, 2.0, 1.2)),  # a board
            ((7.95, 1.0, -1.0), (8.0, 3.0, 1.2)),  # a double door
        ],
        (16, 15.0),
        0.7,
    ),
}


def scans(preprocess: PreprocessConfig, raw_intensity: bool) -> list[dict[str, Voxels]]:
    """Voxels of a noisy scan of each scene, from fixed seeds: in the given voxel size, and in the coarsest one.

    The coarsest is that of the rate keeper. Scenes without points in the field of view are left out.
    """
    finest = preprocess.voxel_size
    groups = []
    for size in sorted({finest, max(finest, COARSEST)}):
        sized = preprocess.model_copy(update={"voxel_size": size})
        group = {
            f"{name}, {size:g} m": _scan(scene, np.random.default_rng(seed), sized, raw_intensity)
            for seed, (name, scene) in enumerate(_SCENES.items())
        }
        groups.append({name: voxels for name, voxels in group.items() if len(voxels)})
    return groups


def room() -> Float32:
    """(N, 3) points of the first scene."""
    return _points(_SCENES["room"], np.random.default_rng(0))


def version() -> str:
    """Version of the scans: digest of the code that makes them, and of the versions of its compiler."""
    return digest([Path(__file__), Path(preparation.__file__)], cache_folder().name, numba.__version__, llvm_version)


def _scan(scene: _Scene, rng: np.random.Generator, preprocess: PreprocessConfig, raw_intensity: bool) -> Voxels:
    xyz = _points(scene, rng)
    return prepare(xyz, _intensities(len(xyz), raw_intensity, rng), preprocess)[0]


def _points(scene: _Scene, rng: np.random.Generator) -> Float32:
    count, uppermost = scene.beams
    azimuth, altitude = np.meshgrid(
        np.linspace(-np.pi, np.pi, 1024), np.radians(np.linspace(-uppermost, uppermost, count))
    )
    direction = np.stack(
        [np.cos(altitude) * np.cos(azimuth), np.cos(altitude) * np.sin(azimuth), np.sin(altitude)], axis=-1
    ).reshape(-1, 3)
    direction[direction == 0] = 1e-9
    distance = np.maximum(scene.hollow[0] / direction, scene.hollow[1] / direction).min(axis=1)
    for low, high in scene.boxes:
        enter = np.minimum(low / direction, high / direction).max(axis=1)
        leave = np.maximum(low / direction, high / direction).min(axis=1)
        distance = np.where((enter < leave) & (enter > 0), np.minimum(distance, enter), distance)
    xyz = direction * (distance + rng.normal(0, 0.01, len(distance)))[:, None]
    cosine, sine = np.cos(scene.yaw), np.sin(scene.yaw)
    xyz[:, :2] = xyz[:, :2] @ np.array([[cosine, -sine], [sine, cosine]])
    points: Float32 = xyz.astype(np.float32)
    return points


def _intensities(count: int, raw: bool, rng: np.random.Generator) -> Float32:
    """(N,) intensities as given to the network: with standard deviation 1, or raw.

    Raw intensities have 8 bits; one point in a hundred is a retroreflector seen by a lidar of 16 bits.
    """
    if not raw:
        return rng.normal(size=count).astype(np.float32)
    bright = rng.random(count) < 0.01
    return np.where(bright, rng.integers(256, 1 << 16, count), rng.integers(0, 256, count)).astype(np.float32)
