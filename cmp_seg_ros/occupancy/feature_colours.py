"""Colours for features, by their three principal components."""

import numpy as np

from cmp_seg_ros.scan import Float32, UInt8

SPREAD = 2.0  # standard deviations that the colours cover on each side


class FeatureColours:
    """Principal components of the first image of features, kept for the images after it so that colours stay."""

    def __init__(self) -> None:
        self._mean: Float32 | None = None

    def __call__(self, features: Float32) -> UInt8:
        """(h, w, F) -> (h, w, 3) uint8."""
        flat = features.reshape(-1, features.shape[-1])
        if self._mean is None:
            self._mean = flat.mean(axis=0)
            variance, axes = np.linalg.eigh(np.cov(flat, rowvar=False, bias=True))  # least first
            self._axes = axes[:, :-4:-1] / np.sqrt(np.maximum(variance[:-4:-1], 1e-12))  # (F, 3), to unit spread
        components = (flat - self._mean) @ self._axes
        colours = np.clip((components / SPREAD + 1) / 2, 0, 1) * 255
        return np.rint(colours).astype(np.uint8).reshape(*features.shape[:2], 3)
