"""What the tests of engines share: bundles of every kind, voxels of a room, and engines that are not checked."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine import registry
from cmp_seg_ros.engine.base import Engine
from cmp_seg_ros.engine.loading import network_of
from cmp_seg_ros.scan import Float32
from cmp_seg_ros.waffleiron.config import PreprocessConfig
from cmp_seg_ros.waffleiron.preprocess import Voxels, prepare

PREPROCESS = PreprocessConfig(fov_min=(-10, -10, -2), fov_max=(10, 10, 3), grids=[(40, 40), (40, 10), (40, 10)])
VARIANTS = [  # of a network
    {"norm": norm, "activation": activation, "head": head, "head_hidden": 40}
    for norm in ("batchnorm", "layernorm")
    for activation in ("relu", "gelu")
    for head in ("linear", "mlp", "probe")
]
MakeBundle = Callable[..., Bundle]


def preprocess_with(**fields: Any) -> PreprocessConfig:
    """PREPROCESS with other fields."""
    return PreprocessConfig.model_validate(PREPROCESS.model_dump() | fields)


def room(points: int, seed: int = 0) -> tuple[Float32, Float32]:
    """Points on the walls, the floor and the ceiling of a room, and on a ball in it, as a lidar sees them."""
    random = np.random.default_rng(seed)
    direction = random.normal(size=(points, 3)) * [1, 1, 0.35]
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    walls = np.abs(np.array([5.0, 3.5, 1.4]) / direction).min(axis=1)
    ball = np.array([1.5, 1.0, -0.5])
    along = direction @ ball
    hit = along - np.sqrt(np.maximum(along**2 - ball @ ball + 0.3, 0))
    distance = np.where((along**2 - ball @ ball + 0.3 > 0) & (along > 0), hit, walls)
    xyz = direction * (distance + random.normal(0, 0.01, points))[:, None]
    return xyz.astype(np.float32), random.random(points).astype(np.float32)


def voxels_of(points: int, preprocess: PreprocessConfig = PREPROCESS, seed: int = 0) -> Voxels:
    return prepare(*room(points, seed), preprocess)[0]


def opened(bundle: Bundle, name: str) -> Engine:
    """The engine `name` with its precision: neither kept nor checked."""
    runtime, precision = registry.find(name)
    network = network_of(bundle)
    return runtime.open(network, runtime.build(network, precision) if runtime.builds else b"", precision)


def answer(engine: Engine, voxels: Voxels) -> Float32:
    """(M, C) logits."""
    logits: Float32 = engine(voxels.inputs._asdict())["logits"]
    return logits


def truth(bundle: Bundle, voxels: Voxels) -> Float32:
    """(M, C) logits of the plain network."""
    return answer(opened(bundle, "reference-fp32"), voxels)


def changed(bundle: Bundle, trained: bool | None = None, **fields: Any) -> Bundle:
    """The bundle with other fields of its section, and as if it had been trained or not."""
    section = bundle.points.model_copy(update=fields)
    update: dict[str, Any] = {bundle.description.kind: section}
    if trained is not None:
        update["training"] = {"steps": 1} if trained else {}
    other = Bundle(bundle.path)
    other.description = bundle.description.model_copy(update=update)
    return other
