"""Normalisation of intensities to the scale that a bundle was trained with."""

import logging

import numpy as np

from cmp_seg_ros.bundle import IntensityConfig
from cmp_seg_ros.scan import Float32

logger = logging.getLogger(__name__)

SCANS_TO_LEARN = 10
PLAUSIBLE = 1e7  # larger than any sensor's scale


class IntensityScale:
    """(i - mean) / std, according to the bundle's `intensity`; missing intensities become 0.

    In mode `per_sensor` the statistics are those of the calibration, or else of the first ten scans, then fixed.
    """

    def __init__(self, config: IntensityConfig, mean: float | None = None, std: float | None = None) -> None:
        self.config = config
        self.mean, self.std = 0.0, 1.0
        if config.mode == "fixed":
            self.mean, self.std = config.mean, config.std
        self.learning = config.mode == "per_sensor"
        if self.learning and mean is not None and std is not None and std > 0:
            self.mean, self.std, self.learning = mean, std, False
        self._scans, self._count, self._sum, self._squares = 0, 0, 0.0, 0.0

    def __call__(self, intensity: Float32 | None, count: int) -> Float32:
        """(N,) raw intensities, or None -> (N,) float32 normalised intensities.

        NaN, infinity and implausible values count as missing.
        """
        if intensity is None:
            return np.zeros(count, dtype=np.float32)
        known = np.abs(intensity) < PLAUSIBLE
        if self.learning and known.any():
            self._learn(intensity[known].astype(np.float64))
        with np.errstate(all="ignore"):  # missing values
            scaled: Float32 = ((intensity - self.mean) / self.std).astype(np.float32)
            if self.config.limit is not None:
                scaled = scaled.clip(-self.config.limit, self.config.limit)
        scaled[~known] = 0.0
        return scaled

    def _learn(self, intensity: np.ndarray) -> None:
        self._scans += 1
        self._count += len(intensity)
        self._sum += float(intensity.sum())
        self._squares += float(np.square(intensity).sum())
        self.mean = self._sum / self._count
        self.std = float(np.sqrt(max(self._squares / self._count - self.mean**2, 0.0))) or 1.0
        if self._scans == SCANS_TO_LEARN:
            self.learning = False
            logger.info("intensity statistics learnt: mean %.4g, std %.4g", self.mean, self.std)
