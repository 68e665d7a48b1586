"""A teacher for simulated images that knows their truth, and makes the errors of a real one.

1. Classes are confused as often as the real teacher confuses them inside surfaces: a frozen matrix P(answer | truth).
   Errors come in patches, since the noise that draws them is smooth: with G of Gumbel's distribution the likeliest of
   log P + G is a class drawn from P (Maddison et al., A* Sampling, 2014).
2. Masks are coarse: truth is blurred over a few of the cells in which the real teacher answers, so that borders are
   rounded and thin things vanish.
"""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import Field

from cmp_seg_ros import configuration
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import Float32, UInt8
from cmp_seg_ros.teachers import base
from cmp_seg_ros.teachers.base import Card, Masks

FOLDER = "config/teachers"
LEAST = 1e-4  # probability of an answer


class ErrorModel(configuration.KnownFields):
    """The errors of a real teacher.

    Args:
        teacher: its name.
        answers: name of its label space.
        cells: along a side of the grid in which it answers.
        blur: standard deviation over which it mixes classes, cells.
        patch: standard deviation of the noise, cells.
        sharpness: factor on the logits; it decides the confidences, and no label.
        confusion: by class of `indoor` that is true: the share of each answer; answers that are left out never come.
    """

    teacher: str
    answers: str
    cells: int = Field(gt=1)
    blur: float = Field(ge=0)
    patch: float = Field(gt=0)
    sharpness: float = Field(gt=0)
    confusion: dict[str, dict[str, float]]

    @classmethod
    def load(cls, name: str) -> "ErrorModel":
        """Raises UserError."""
        return configuration.load(cls, FOLDER, "teacher's errors", name)

    def matrix(self) -> Float32:
        """(C + 1, A) shares of the answers by class of `indoor`, in order; the last row is of what has no class.

        Classes that were never seen get the mean of the others.

        Raises:
            UserError: a class is missing.
        """
        truth, answers = LabelSpace.load("indoor"), LabelSpace.load(self.answers)
        missing = [name for name in [*truth.names, "nothing"] if name not in self.confusion]
        if missing:
            raise UserError(f"the errors of teacher {self.teacher} lack {', '.join(missing)}; measure them again")
        rows = [self.confusion[name] for name in [*truth.names, "nothing"]]
        table = np.array([[row.get(name, 0.0) for name in answers.names] for row in rows], np.float32)
        seen = table.sum(axis=1, keepdims=True)
        mean = table.sum(axis=0) / table.sum()
        return np.where(seen > 0, table / np.maximum(seen, 1e-9), mean)


class Teacher(base.Teacher):
    """Answers with the truth of an image, and a real teacher's errors; the same image always gets the same answer.

    Args:
        truth: gives the (H, W) ids in `indoor` of an (H, W, 3) image.
        errors: name of an error model in config/teachers.
    """

    name = "simulated"
    dimension = 0

    def __init__(self, truth: Callable[[UInt8], UInt8], errors: str = "mosaic") -> None:
        self._truth, self._errors = truth, ErrorModel.load(errors)
        self._space = self.label_space = LabelSpace.load(self._errors.answers)
        self._index = np.minimum(LabelSpace.load("indoor").index_of_id, len(LabelSpace.load("indoor").classes))
        self._confusion = self._errors.matrix()

    def masks(self, rgb: UInt8) -> Masks:
        size = rgb.shape[0], rgb.shape[1]
        shares = self._blurred(self._index[self._truth(rgb)]) @ self._confusion  # (h, w, A)
        logits = np.log(np.maximum(shares, LEAST)) + self._noise(zlib.crc32(rgb.tobytes()))
        power = np.exp(self._errors.sharpness * (logits - logits.max(axis=2, keepdims=True)))
        probabilities = np.asarray(power / power.sum(axis=2, keepdims=True), np.float32)
        confidence = base.resized(probabilities.max(axis=2), size)
        return Masks(base.nearest(self._space.ids[probabilities.argmax(axis=2)], size), confidence, probabilities)

    def _blurred(self, truth: UInt8) -> Float32:
        """(H, W) rows of the confusion -> (h, w, C + 1) share of each around each cell."""
        from scipy.ndimage import gaussian_filter

        coarse = base.nearest(truth, (self._errors.cells, self._errors.cells))
        one_hot = np.eye(len(self._confusion), dtype=np.float32)[coarse]
        blurred: Float32 = gaussian_filter(one_hot, (self._errors.blur, self._errors.blur, 0), mode="nearest")
        return blurred

    def _noise(self, seed: int) -> Float32:
        """(h, w, A) smooth noise, everywhere of Gumbel's distribution."""
        from scipy.ndimage import gaussian_filter
        from scipy.special import ndtr

        cells, answers, patch = self._errors.cells, self._confusion.shape[1], self._errors.patch
        rng = np.random.default_rng(seed)
        normal = gaussian_filter(rng.standard_normal((cells, cells, answers)), (patch, patch, 0), mode="wrap")
        uniform = np.clip(ndtr(normal / normal.std()), 1e-6, 1 - 1e-6)
        return np.asarray(-np.log(-np.log(uniform)), np.float32)


def _without_truth(path: Path) -> base.Teacher:
    raise UserError(
        "the simulated teacher needs the truth of its images: use it from Python, as benchmarks/pseudo_labels.py does"
    )


CARDS = (
    Card(
        name="simulated",
        file="",
        source="part of this package",
        licence="Apache-2.0",
        load=_without_truth,
        recognises=lambda path: False,
    ),
)
