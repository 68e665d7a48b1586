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
            _, size, axes = np.linalg.svd(flat - self._mean, full_matrices=False)
            self._axes = axes[:3].T / np.maximum(size[:3] / np.sqrt(len(flat)), 1e-6)  # (F, 3), to unit spread
        components = (flat - self._mean) @ self._axes
        colours = np.clip((components / SPREAD + 1) / 2, 0, 1) * 255
        return np.rint(colours).astype(np.uint8).reshape(*features.shape[:2], 3)
