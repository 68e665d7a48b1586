"""Augmented copies of an image, and the mean of what a teacher says of them at each point.

A teacher that is sure names the same class whether it sees the image whole, mirrored, or a part of it enlarged
(test-time augmentation, as in LOSC, arXiv 2507.07605).
"""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from cmp_seg_ros.scan import Float32, UInt8
from cmp_seg_ros.teachers.base import Masks, Teacher

SHARE = 0.6  # of each side of an image that each of its four parts covers


class Copy(NamedTuple):
    """A changed image, (h, w, 3). A pixel uv of the whole one is in it at scale * uv + shift, (2,) each."""

    rgb: UInt8
    scale: Float32
    shift: Float32


def copies(rgb: UInt8) -> Iterator[Copy]:
    """The image itself, its mirror image, and its four corners, which overlap and which the teacher sees enlarged."""
    height, width = rgb.shape[:2]
    yield Copy(rgb, _pair(1, 1), _pair(0, 0))
    yield Copy(np.ascontiguousarray(rgb[:, ::-1]), _pair(-1, 1), _pair(width - 1, 0))
    h, w = round(SHARE * height), round(SHARE * width)
    for top in (0, height - h):
        for left in (0, width - w):
            part = np.ascontiguousarray(rgb[top : top + h, left : left + w])
            yield Copy(part, _pair(1, 1), _pair(-left, -top))


def _pair(x: float, y: float) -> Float32:
    return np.array([x, y], np.float32)


class Consensus(NamedTuple):
    """What the copies say of N points.

    probabilities: (N, C) mean over the copies that show a point. agreement: (N,) share of these copies whose likeliest
    class is that of the mean. single: (N, C) of the image itself. masks: of the image itself.
    """

    probabilities: Float32
    agreement: Float32
    single: Float32
    masks: Masks


def consensus(teacher: Teacher, rgb: UInt8, uv: Float32, merge: Float32, augmented: bool) -> Consensus:
    """Ask a teacher about the copies of an image, or only about the image itself.

    Args:
        uv: (N, 2) pixels.
        merge: (C_teacher, C) classes of the teacher to columns of the result.
    """
    total, count = np.zeros((len(uv), merge.shape[1]), np.float32), np.zeros(len(uv), np.float32)
    votes, single, first = np.zeros_like(total), total, None
    for copy in islice(copies(rgb), None if augmented else 1):
        masks = teacher.masks(copy.rgb)
        height, width = copy.rgb.shape[:2]
        there = uv * copy.scale + copy.shift
        rows = np.flatnonzero(((there >= 0) & (there <= (width - 1, height - 1))).all(axis=1))
        said = probabilities_at(masks, there[rows], teacher) @ merge  # (M, C)
        if first is None:  # the image itself shows all points
            first, single = masks, said
        total[rows] += said
        votes[rows, said.argmax(axis=1)] += 1
        count[rows] += 1
    assert first is not None
    mean: Float32 = (total / np.maximum(count, 1)[:, None]).astype(np.float32)
    agreement = (votes[np.arange(len(uv)), mean.argmax(axis=1)] / np.maximum(count, 1)).astype(np.float32)
    return Consensus(mean, agreement, single, first)


def probabilities_at(masks: Masks, uv: Float32, teacher: Teacher) -> Float32:
    """(N, C) probabilities of the teacher's classes at (N, 2) pixels, or from label and confidence if it gives none."""
    if masks.probabilities is not None:
        return masks.at(uv)
    assert teacher.label_space is not None
    column, row = np.rint(uv).astype(np.int64).T
    classes = len(teacher.label_space.classes)
    confidence = np.maximum(masks.confidence[row, column], 1 / classes)
    found = np.repeat(((1 - confidence) / max(1, classes - 1))[:, None], classes, axis=1).astype(np.float32)
    found[np.arange(len(uv)), teacher.label_space.index_of_id[masks.label[row, column]]] = confidence
    return found
