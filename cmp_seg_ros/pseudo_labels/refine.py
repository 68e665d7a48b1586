"""Which points keep their pseudo-labels. Each function is one reason to reject points, and can be left out."""

import numpy as np

from cmp_seg_ros.scan import UNLABELLED, Bool, Float32, UInt8

DIRECTIONS = 8


def near_border(label: UInt8, uv: Float32, width: float) -> Bool:
    """(N,) whether the mask changes within `width` pixels of a point.

    A calibration is a few pixels off, and so are a teacher's borders.

    Args:
        label: (H, W) mask. uv: (N, 2) pixels in it.
    """
    column, row = np.rint(uv).astype(np.int64).T
    here = label[row, column]
    changed = np.zeros(len(uv), np.bool_)
    for angle in np.linspace(0, 2 * np.pi, DIRECTIONS, endpoint=False):
        for reach in (width / 2, width):
            x = np.clip(np.rint(uv[:, 0] + reach * np.cos(angle)), 0, label.shape[1] - 1).astype(np.int64)
            y = np.clip(np.rint(uv[:, 1] + reach * np.sin(angle)), 0, label.shape[0] - 1).astype(np.int64)
            changed |= label[y, x] != here
    return changed


def rank_in_class(label: UInt8, score: Float32) -> Float32:
    """(N,) where a point stands among those with its label, by its (N,) score: from 0, the lowest, to 1.

    To keep the same share of each class is to keep rare ones, which no threshold does that suits the common ones
    (class-balanced self-training; Zou et al., ECCV 2018).
    """
    rank = np.zeros(len(label), np.float32)
    for one in np.unique(label):
        points = np.flatnonzero(label == one)
        rank[points[np.argsort(score[points], kind="stable")]] = (np.arange(len(points)) + 0.5) / len(points)
    return rank


def decide(probabilities: Float32, ids: UInt8) -> tuple[UInt8, Float32]:
    """(N,) likeliest class and its probability; UNLABELLED and 0 where none, or what is ignored, is likelier.

    Args:
        probabilities: (N, C); rows add up to 1 less what the mapping ignores.
        ids: (C,) of the classes.
    """
    best = probabilities.argmax(axis=1)
    confidence = probabilities[np.arange(len(best)), best]
    labelled = (confidence > 0) & (confidence >= 1 - probabilities.sum(axis=1))
    return np.where(labelled, ids[best], UNLABELLED).astype(np.uint8), np.where(labelled, confidence, 0)
