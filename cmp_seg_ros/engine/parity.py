"""Does an engine of lower precision answer as float32 does? Asked once for each bundle and machine."""

import json
import logging
import os
from collections.abc import Callable

import llvmlite.binding as llvm
import numpy as np

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine.base import Engine
from cmp_seg_ros.kernels.launch import cache_folder
from cmp_seg_ros.waffleiron.config import PreprocessConfig
from cmp_seg_ros.waffleiron.preprocess import Voxels, prepare

logger = logging.getLogger(__name__)

# A furnished room around the sensor: least and greatest x, y, z of its walls, and of what stands in it.
WALLS = (-3.6, -2.7, -0.9), (5.1, 4.2, 1.7)
FURNITURE = np.array(
    [
        [(1.2, 0.8, -0.2), (2.8, 1.7, -0.15)],  # a table and two of its legs
        [(1.25, 0.85, -0.9), (1.32, 0.92, -0.2)],
        [(2.68, 1.58, -0.9), (2.75, 1.65, -0.2)],
        [(-3.6, 1.0, -0.9), (-3.0, 2.2, 1.1)],  # a cupboard
        [(0.5, -2.7, -0.9), (2.6, -1.9, -0.1)],  # a sofa
        [(-1.6, -1.9, -0.9), (-1.2, -1.4, 0.85)],  # somebody
        [(5.05, -0.5, -0.9), (5.1, 0.5, 1.2)],  # a door
    ]
)


def agreement(bundle: Bundle, engine: Engine, exact: Callable[[], Engine]) -> float:
    """Fraction of the labels of a sample scan in which the engine and the exact one agree; remembered in the cache."""
    processor = f"{llvm.get_host_cpu_name()}-{engine.name}-{engine.precision}"
    memory = cache_folder() / f"agreement-{bundle.hash}-{processor}.json"
    try:
        return float(json.loads(memory.read_text())["agreement"])
    except (OSError, ValueError, KeyError, TypeError):  # not asked yet, or damaged
        pass
    voxels = sample(bundle.description.preprocess)
    agreed = engine(voxels).argmax(axis=1) == exact()(voxels).argmax(axis=1)
    found = float(agreed.mean()) if len(voxels) else 0.0
    logger.info(
        "%s %s: %.2f %% of the labels of a sample scan as in float32", engine.name, engine.precision, 100 * found
    )
    temporary = memory.with_suffix(f".{os.getpid()}")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"agreement": found}))
        temporary.replace(memory)
    except OSError as error:
        logger.info("the agreement cannot be remembered in %s: %s", memory, error)
    return found


def sample(preprocess: PreprocessConfig) -> Voxels:
    """Voxels of a scan by 16 beams in the room above."""
    rng = np.random.default_rng(0)
    azimuth, altitude = np.meshgrid(np.linspace(-np.pi, np.pi, 1024), np.radians(np.linspace(-16, 16, 16)))
    direction = np.stack(
        [np.cos(altitude) * np.cos(azimuth), np.cos(altitude) * np.sin(azimuth), np.sin(altitude)], axis=-1
    ).reshape(-1, 3)
    direction[direction == 0] = 1e-9
    distance = np.maximum(WALLS[0] / direction, WALLS[1] / direction).min(axis=1)
    for low, high in FURNITURE:
        enter = np.minimum(low / direction, high / direction).max(axis=1)
        leave = np.maximum(low / direction, high / direction).min(axis=1)
        distance = np.where((enter < leave) & (enter > 0), np.minimum(distance, enter), distance)
    xyz = direction * (distance + rng.normal(0, 0.01, len(distance)))[:, None]
    return prepare(xyz.astype(np.float32), rng.normal(size=len(xyz)).astype(np.float32), preprocess)[0]
