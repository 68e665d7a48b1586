"""Does an engine give the same answers as the exact one? Checked on sample scans, once for each engine that is built.

A trained network must give the same labels. In an untrained one all classes are about equally likely and labels are
arbitrary, so probabilities are compared instead. Samples come in groups; the worst group counts.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from cmp_seg_ros.digest import digest
from cmp_seg_ros.engine import cache
from cmp_seg_ros.engine.base import Engine, Network, softmax
from cmp_seg_ros.scan import Arrays, Bool

LABELS = 0.99  # of a trained bundle's voxels must be labelled alike
PROBABILITIES = 0.02  # by which an untrained bundle's may differ on average
COSINE = 0.99  # from which on two features are alike


@dataclass(frozen=True)
class Agreement:
    """How close an engine's answers are to those of the exact one.

    Args:
        labels: fraction of the voxels of a group that are labelled as by the exact engine, in the worst group.
        probabilities: mean absolute difference of the probabilities of all classes, in the worst group.
        scans: labels, sample by sample.
        exact: name of the exact engine.
    """

    labels: float
    probabilities: float
    scans: dict[str, float]
    exact: str

    def passes(self, trained: bool) -> bool:
        return self.probabilities <= PROBABILITIES and (self.labels >= LABELS or not trained)

    def text(self, trained: bool) -> str:
        """In words, with what is wanted of a trained bundle or of an untrained one."""
        if not self.scans:
            return "the sample scans lie outside the bundle's field of view, so nothing was checked"
        wanted = f"{LABELS:.0%} wanted" if trained else "it is untrained"
        return (
            f"{self.labels:.2%} of the labels of sample scans equal those of {self.exact} ({wanted}); probabilities "
            f"differ by {self.probabilities:.2g} on average (at most {PROBABILITIES:g} wanted)"
        )

    def remember(self, key: cache.Key, network: Network) -> None:
        cache.remember(key, _about(network), asdict(self))

    @classmethod
    def recall(cls, key: cache.Key, network: Network) -> "Agreement | None":
        """What was found before; None where nothing was, or it is damaged."""
        found = cache.recall(key, _about(network))
        try:
            return None if found is None else _AGREEMENT.validate_python(found)
        except ValidationError:
            return None


@dataclass
class Exact:
    """The engine that others are checked against.

    Args:
        name: with its precision.
        network: of the bundle.
        make: makes it, when it is needed.
    """

    name: str
    network: Network
    make: Callable[[], Engine]

    @cached_property
    def answers(self) -> list[dict[str, tuple[Arrays, Arrays]]]:
        """Inputs and outputs of the samples, by name and by group."""
        engine = self.make()
        return [{name: (inputs, engine(inputs)) for name, inputs in group.items()} for group in self.network.samples()]


def agreement(engine: Engine, exact: Exact) -> Agreement:
    """Compare the engine with the exact one on all samples."""
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
    """(M,) whether each voxel is answered alike, (M, C) differences; 1 where they are NaN.

    Of logits: the same label, and probabilities. Of features: nearly the same direction, and unit vectors.
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


def _about(network: Network) -> str:
    return f"parity-{digest([Path(__file__)], network.samples_version)}"


_AGREEMENT = TypeAdapter(Agreement)
