"""What a bundle learns last, from scans not trained on: its temperature, and which scans are strange to it."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cmp_seg_ros import familiarity
from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.datasets.frame import Returns
from cmp_seg_ros.engine.base import softmax
from cmp_seg_ros.engine.loading import load_engine
from cmp_seg_ros.scan import UNLABELLED, Float32, UInt8
from cmp_seg_ros.training.augment import random_response, standardised, voxels_and_targets

VOXELS = 1000  # of each scan that the temperature is fitted to
RANGE = (0.3, 5.0)  # of temperatures


def calibrate(bundle: Bundle, scans: Iterable[Returns], out: Path, engine: str = "auto", seed: int = 0) -> Bundle:
    """The bundle with a temperature and a familiarity, in the folder `out`, which may be its own.

    Each scan is seen with its intensities, with others, and without, so that both hold for all of these.
    """
    rng, run = np.random.default_rng(seed), load_engine(bundle, engine)
    config, limit = bundle.points.preprocess, bundle.points.intensity.limit
    logits, targets, seen = [], [], []
    for scan in scans:
        strange = random_response(scan.xyz, scan.ring, scan.intensity, rng).astype(np.float32)
        for intensity in (scan.intensity, strange, np.zeros_like(scan.intensity)):
            shown = standardised(scan._replace(intensity=intensity), limit)
            voxels, target = voxels_and_targets(shown, config, None, rng)
            if not len(voxels):
                continue
            said: Float32 = run(voxels.inputs._asdict())["logits"]
            seen.append((scan.xyz, voxels.xyz, said))
            chosen = rng.permutation(np.flatnonzero(target != UNLABELLED))[:VOXELS]
            logits.append(said[chosen])
            targets.append(target[chosen])
    temperature = fit_temperature(np.concatenate(logits), np.concatenate(targets))
    figures = [familiarity.figures(xyz, places, softmax(said / np.float32(temperature))) for xyz, places, said in seen]
    description = bundle.description.model_copy(
        update={"temperature": temperature, "familiarity": familiarity.fit(np.array(figures))}
    )
    return Bundle.write(out, bundle.weights_path.read_bytes(), **description.model_dump(exclude={"weights_sha256"}))


def fit_temperature(logits: Float32, target: UInt8) -> float:
    """The temperature at which (M, C) logits give (M,) targets the least mean negative log likelihood."""
    from scipy.optimize import minimize_scalar

    wide = logits.astype(np.float64)

    def loss(temperature: float) -> float:
        return float(-_log_softmax(wide / temperature)[np.arange(len(target)), target].mean())

    return round(float(minimize_scalar(loss, bounds=RANGE, method="bounded").x), 3)


def _log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
