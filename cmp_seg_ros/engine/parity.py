"""Does an engine answer as the exact one does? Asked on sample scans, once for each engine that is built.

A trained network must label the voxels alike; where nothing was learned, classes are all but equal and labels fall at
random, so it is the probabilities that count. Asked with the bundle's voxels and with the coarsest that the rate keeper
takes; the worse answer counts.
"""

import logging
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import llvmlite
import numba
import numpy as np
from pydantic import TypeAdapter, ValidationError

from cmp_seg_ros import rate_keeper
from cmp_seg_ros.bundle import Bundle, BundleDescription, IntensityConfig
from cmp_seg_ros.digest import digest
from cmp_seg_ros.engine import cache
from cmp_seg_ros.engine.base import Engine, softmax
from cmp_seg_ros.kernels.launch import cache_folder
from cmp_seg_ros.scan import Float32
from cmp_seg_ros.waffleiron import preprocess as preparation
from cmp_seg_ros.waffleiron.config import PreprocessConfig
from cmp_seg_ros.waffleiron.preprocess import Voxels, prepare

LABELS = 0.99  # of a trained bundle's voxels must be labelled alike
PROBABILITIES = 0.02  # that an untrained bundle's may differ by in the mean

logger = logging.getLogger(__name__)

Box = tuple[tuple[float, float, float], tuple[float, float, float]]  # least and greatest x, y, z in metres


@dataclass(frozen=True)
class Agreement:
    """How an engine answers.

    Args:
        labels: fraction of the voxels of all sample scans that are labelled as the exact engine does, with the size of
            voxels where they are fewest.
        probabilities: mean absolute difference of the probabilities of all classes, with the size where it is greatest.
        scans: labels, scan by scan, with each size.
        exact: name of the exact engine.
        trained: whether the bundle is.
    """

    labels: float
    probabilities: float
    scans: dict[str, float]
    exact: str
    trained: bool

    @property
    def passes(self) -> bool:
        return self.probabilities <= PROBABILITIES and (self.labels >= LABELS or not self.trained)

    def __str__(self) -> str:
        if not self.scans:
            return "the bundle sees nothing of the sample scans, so nothing was checked"
        wanted = f"{LABELS:.0%} wanted" if self.trained else "it is untrained"
        return (
            f"{self.labels:.2%} of the labels of sample scans are those of {self.exact} ({wanted}); probabilities "
            f"differ by {self.probabilities:.2g} in the mean (at most {PROBABILITIES:g} wanted)"
        )

    def remember(self, key: cache.Key) -> None:
        cache.remember(key, _ABOUT, asdict(self))

    @classmethod
    def recall(cls, key: cache.Key) -> "Agreement | None":
        """What was found before; None where nothing was, or it is damaged."""
        found = cache.recall(key, _ABOUT)
        try:
            return None if found is None else _AGREEMENT.validate_python(found)
        except ValidationError:
            return None


class Exact:
    """The engine that others are checked against, made when it is needed.

    Args:
        name: "reference-fp32" (needs PyTorch) or "cpu-fp32".
        bundle: the model.
    """

    def __init__(self, name: str, bundle: Bundle) -> None:
        self.name, self._bundle = name, bundle

    @classmethod
    def best(cls, bundle: Bundle) -> "Exact":
        """The plain network where PyTorch is installed, else our own engine in float32."""
        return cls("reference-fp32" if find_spec("torch") else "cpu-fp32", bundle)

    @cached_property
    def answers(self) -> list[dict[str, tuple[Voxels, Float32]]]:
        """The sample scans by name, each with its logits, for each size of voxels."""
        engine: Engine
        if self.name == "cpu-fp32":
            engine = import_module("cmp_seg_ros.engine.cpu").CpuEngine(self._bundle, "fp32")
        else:
            engine = import_module("cmp_seg_ros.engine.reference").load(self._bundle)
        return [
            {name: (voxels, engine(voxels)) for name, voxels in scans.items()}
            for scans in samples(self._bundle.description)
        ]


def agreement(bundle: Bundle, engine: Engine, exact: Exact) -> Agreement:
    """How the engine answers on the sample scans."""
    labels, probabilities = [], []
    scans: dict[str, float] = {}
    for answers in exact.answers:
        alike, apart = {}, []
        for name, (voxels, truth) in answers.items():
            answer = engine(voxels)
            alike[name] = answer.argmax(axis=1) == truth.argmax(axis=1)
            difference = np.abs(softmax(answer) - softmax(truth))
            apart.append(np.where(np.isfinite(difference), difference, 1).ravel())
        if any(map(len, alike.values())):
            labels.append(float(np.concatenate(list(alike.values())).mean()))
            probabilities.append(float(np.concatenate(apart).mean()))
            scans |= {name: float(right.mean()) for name, right in alike.items() if len(right)}
    found = Agreement(
        labels=min(labels, default=0.0),
        probabilities=max(probabilities, default=1.0),
        scans=scans,
        exact=exact.name,
        trained=bool(bundle.description.training),
    )
    logger.info("%s-%s: %s", engine.name, engine.precision, found)
    return found


@dataclass(frozen=True)
class _Scene:
    """A place of boxes around a lidar in its origin.

    Args:
        hollow: the walls, floor and ceiling, seen from inside.
        boxes: what stands in it.
        beams: how many, and the altitude of the uppermost and lowermost in degrees.
        yaw: of the lidar in it, in radians.
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
            ((-1.6, -1.9, -0.9), (-1.2, -1.4, 0.85)),  # somebody
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
            ((3.2, -0.3, -0.8), (3.5, 0.2, 0.0)),  # somebody's legs, body and head
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
            ((1.8, -2.2, -1.0), (2.1, -1.75, -0.1)),  # somebody near, somebody far
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


def samples(description: BundleDescription) -> list[dict[str, Voxels]]:
    """Voxels of a scan of each sample scene, with noise from fixed seeds: of the bundle's size, and of the coarsest."""
    finest = description.preprocess.voxel_size
    return [
        {
            f"{name}, {size:g} m": _scan(
                scene,
                np.random.default_rng(seed),
                description.preprocess.model_copy(update={"voxel_size": size}),
                description.intensity,
            )
            for seed, (name, scene) in enumerate(_SCENES.items())
        }
        for size in sorted({finest, max(finest, rate_keeper.COARSEST)})
    ]


def _scan(scene: _Scene, rng: np.random.Generator, preprocess: PreprocessConfig, intensity: IntensityConfig) -> Voxels:
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
    return prepare(xyz.astype(np.float32), _intensities(len(xyz), intensity, rng), preprocess)[0]


def _intensities(count: int, config: IntensityConfig, rng: np.random.Generator) -> Float32:
    """(N,) as they reach the network: of deviation 1, but for `raw` as lidars give them.

    Those are 8 bits, and for one point in a hundred what a retroreflector gives a lidar of 16 bits.
    """
    if config.mode != "raw":
        return rng.normal(size=count).astype(np.float32)
    bright = rng.random(count) < 0.01
    return np.where(bright, rng.integers(256, 1 << 16, count), rng.integers(0, 256, count)).astype(np.float32)


# What was found out holds for these scans, made by these kernels, as compiled by these versions.
_MADE_BY = (cache_folder().name, numba.__version__, llvmlite.__version__)
_ABOUT = f"parity-{digest([Path(__file__), Path(preparation.__file__)], *_MADE_BY)}"
_AGREEMENT = TypeAdapter(Agreement)
