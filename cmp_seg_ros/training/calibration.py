"""What a bundle learns last, from scans not trained on: its temperature, and what is strange to it."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from cmp_seg_ros import familiarity, strange_intensity
from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.datasets.frame import Returns
from cmp_seg_ros.engine.base import softmax
from cmp_seg_ros.engine.loading import load_engine
from cmp_seg_ros.familiarity import Choice, Float64
from cmp_seg_ros.scan import UNLABELLED, Float32, UInt8
from cmp_seg_ros.training.augment import random_response, voxels_of
from cmp_seg_ros.waffleiron.preprocess import Voxels, column_of

RESPONSES = 4  # random intensities of each scan that the gate for strange ones is fitted to
VOXELS = 1000  # of each scan that the temperature is fitted to
RANGE = (0.3, 5.0)  # of temperatures
COARSEST = 2.0  # times the bundle's voxel size, as a node takes voxels on a slow machine
# Of the scans of the training, this share keeps its intensities: labels without are hardly worse than with the
# simulator's, and far better than with strange ones.
KEPT = 0.95


def calibrate(bundle: Bundle, scans: Iterable[Returns], out: Path, engine: str = "auto") -> Bundle:
    """Write the bundle with temperature, familiarity and gate for intensities to `out`, which may be its own folder.

    Each scan is seen with its intensities, with others, and without, and in larger voxels, so that they hold for all of
    these.
    """
    kept, rng = list(scans), np.random.default_rng(0)
    gate = _fit_intensities(bundle, kept, rng)
    column = _intensity_column(bundle)
    run = load_engine(bundle, engine)
    logits, targets, seen = [], [], []
    for scan in kept:
        strange = random_response(scan.xyz, scan.ring, scan.intensity, rng).astype(np.float32)
        others = (scan._replace(intensity=intensity) for intensity in (strange, np.zeros_like(strange)))
        for voxels, target in (*_seen(bundle, scan, rng), *(next(_seen(bundle, other, rng)) for other in others)):
            if not len(voxels):
                continue
            if gate is not None and column is not None:
                voxels, _ = strange_intensity.gated(voxels, column, gate)
            said: Float32 = run(voxels.inputs._asdict())["logits"]
            seen.append((scan.xyz, voxels.xyz, said))
            chosen = rng.permutation(np.flatnonzero(target != UNLABELLED))[:VOXELS]
            logits.append(said[chosen])
            targets.append(target[chosen])
    temperature = fit_temperature(np.concatenate(logits), np.concatenate(targets))
    figures = [familiarity.figures(xyz, places, softmax(said / np.float32(temperature))) for xyz, places, said in seen]
    description = bundle.description.model_copy(
        update={
            "temperature": temperature,
            "familiarity": familiarity.fit(rng.permutation(np.array(figures))),
            "intensities": gate,
        }
    )
    return Bundle.write(out, bundle.weights_path.read_bytes(), **description.model_dump(exclude={"weights_sha256"}))


def _seen(bundle: Bundle, scan: Returns, rng: np.random.Generator) -> Iterator[tuple[Voxels, UInt8]]:
    """Voxels and targets of a scan at the bundle's voxel size, and at a larger one."""
    config, limit = bundle.points.preprocess, bundle.points.intensity.limit
    voxels, rows = voxels_of(scan, config, limit)
    yield voxels, scan.label[rows]
    larger = config.voxel_size * rng.uniform(1, COARSEST)
    voxels, rows = voxels_of(scan, config.model_copy(update={"voxel_size": larger}), limit)
    yield voxels, scan.label[rows]


def _fit_intensities(bundle: Bundle, scans: Iterable[Returns], rng: np.random.Generator) -> Choice | None:
    """From scans with the simulator's intensities and with random ones; None for a network that sees none."""
    column = _intensity_column(bundle)
    if column is None:
        return None
    usual: list[Float64] = []
    other: list[Float64] = []
    for scan in scans:
        strange = [random_response(scan.xyz, scan.ring, scan.intensity, rng) for _ in range(RESPONSES)]
        for kind, intensity in ((usual, scan.intensity), *((other, one.astype(np.float32)) for one in strange)):
            for voxels, _ in _seen(bundle, scan._replace(intensity=intensity), rng):
                found = strange_intensity.figures(voxels.xyz, voxels.neighbours, voxels.features[:, column])
                kind += [] if found is None else [found]
    return familiarity.fit_choice(rng.permutation(np.array(usual)), rng.permutation(np.array(other)), KEPT)


def _intensity_column(bundle: Bundle) -> int | None:
    names = bundle.points.preprocess.features
    return column_of("intensity", names) if "intensity" in names else None


def fit_temperature(logits: Float32, target: UInt8) -> float:
    """The temperature at which (M, C) logits give (M,) targets the least mean negative log likelihood."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    wide = logits.astype(np.float64)

    def loss(temperature: float) -> float:
        return float(-log_softmax(wide / temperature, axis=1)[np.arange(len(target)), target].mean())

    return round(float(minimize_scalar(loss, bounds=RANGE, method="bounded").x), 3)
