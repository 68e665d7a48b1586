"""Checks that an engine agrees with the exact one on the network's samples, once for each built engine.

Trained networks must give the same labels. In untrained ones all classes are almost equally likely, so labels are
random and only probabilities are compared. Samples come in groups; the worst group counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from cmp_seg_ros.digest import digest
from cmp_seg_ros.engine import cache
from cmp_seg_ros.engine.base import Engine, softmax
from cmp_seg_ros.scan import Arrays, Bool
from cmp_seg_ros.waffleiron.model import WaffleIron

LABELS = 0.99  # share of voxels with the same label, at least, for trained bundles
PROBABILITIES = 0.02  # mean difference of probabilities, at most
COSINE = 0.99  # cosine similarity from which two features count as equal


@dataclass(frozen=True)
class Agreement:
    """Agreement of an engine with the exact one.

    Args:
        labels: fraction of the voxels with the same label, in the worst group.
        probabilities: mean absolute difference of the probabilities of all classes, in the worst group.
        scans: the fraction `labels` of each sample.
        exact: name of the exact engine.
    """

    labels: float
    probabilities: float
    scans: dict[str, float]
    exact: str

    def passes(self, trained: bool) -> bool:
        return self.probabilities <= PROBABILITIES and (self.labels >= LABELS or not trained)

    def text(self, trained: bool) -> str:
        """The result as a sentence, with the limits for a trained or an untrained bundle."""
        if not self.scans:
            return "not checked: no sample scan has points in the bundle's field of view"
        wanted = f"at least {LABELS:.0%} required" if trained else "not required, the bundle is untrained"
        return (
            f"{self.labels:.2%} of the labels of sample scans agree with {self.exact} ({wanted}); probabilities differ "
            f"by {self.probabilities:.2g} on average (at most {PROBABILITIES:g} allowed)"
        )

    def remember(self, key: cache.Key, network: WaffleIron) -> None:
        cache.remember(key, _about(network), _AGREEMENT.dump_json(self))

    @classmethod
    def recall(cls, key: cache.Key, network: WaffleIron) -> "Agreement | None":
        """The result of an earlier check; None if it is missing or damaged."""
        try:
            return _AGREEMENT.validate_json(cache.recall(key, _about(network)))
        except ValidationError:
            return None


@dataclass
class Exact:
    """The engine that others are checked against.

    Args:
        name: of the engine, with its precision.
        network: of the bundle.
        make: creates the engine when it is first needed.
    """

    name: str
    network: WaffleIron
    make: Callable[[], Engine]

    @cached_property
    def answers(self) -> list[dict[str, tuple[Arrays, Arrays]]]:
        """Inputs and outputs of the samples, by name, in groups."""
        engine = self.make()
        return [{name: (inputs, engine(inputs)) for name, inputs in group.items()} for group in self.network.samples()]


def agreement(engine: Engine, exact: Exact) -> Agreement:
    """Compare the engine with the exact one on the samples."""
    labels, probabilities = [], []
    scans: dict[str, float] = {}
    for answers in exact.answers:
        found = {name: compare(engine(inputs), truth) for name, (inputs, truth) in answers.items()}
        if found:
            labels.append(float(np.concatenate([alike for alike, _ in found.values()]).mean()))
            probabilities.append(float(np.concatenate([difference for _, difference in found.values()]).mean()))
            scans |= {name: float(alike.mean()) for name, (alike, _) in found.items()}
    return Agreement(min(labels, default=0.0), max(probabilities, default=1.0), scans, exact.name)


def compare(answer: Arrays, truth: Arrays) -> tuple[Bool, npt.NDArray[np.floating]]:
    """(M,) whether both agree at each voxel, and (M, C) absolute differences; 1 where NaN.

    Logits: same label, and differences of probabilities. Features: cosine similarity, and differences of unit vectors.
    """
    if "logits" in truth:
        alike = answer["logits"].argmax(axis=1) == truth["logits"].argmax(axis=1)
        difference = np.abs(softmax(answer["logits"]) - softmax(truth["logits"]))
    else:
        found, wanted = (_unit(next(iter(outputs.values()))) for outputs in (answer, truth))
        alike = (found * wanted).sum(axis=1) >= COSINE
        difference = np.abs(found - wanted)
    return alike, np.where(np.isfinite(difference), difference, 1).ravel()


def _unit(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _about(network: WaffleIron) -> str:
    return f"parity-{digest([Path(__file__)], network.samples_version)}"


_AGREEMENT = TypeAdapter(Agreement)
