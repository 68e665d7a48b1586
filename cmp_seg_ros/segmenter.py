"""Segmentation of a scan: preprocessing, network, and labels for every point."""

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from cmp_seg_ros import familiarity, strange_intensity
from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine.base import softmax
from cmp_seg_ros.engine.loading import load_engine
from cmp_seg_ros.errors import UserError, describe_invalid
from cmp_seg_ros.intensity import IntensityScale
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Float32, Labels, Scan
from cmp_seg_ros.waffleiron.config import PreprocessConfig
from cmp_seg_ros.waffleiron.preprocess import Voxels, column_of, inside_fov, nearest_voxel, prepare


class Segmenter:
    """Labels every point of a scan. Not thread-safe.

    Args:
        bundle: the model.
        engine: name of an engine, or "auto".
        T_base_lidar: (4, 4); its rotation turns scans upright (z up). None: the lidar is upright.
        label_space: name or file of the output label space, which must map from the bundle's; None: the bundle's.
        intensity_mean, intensity_std: the lidar's intensity statistics, for bundles that need them; None: they are
            learnt from the first ten scans.
        probabilities: whether to return the probability of every class.

    Attributes:
        probabilities: may be changed.

    Raises:
        UserError: the bundle is damaged, the engine unknown, or the label space has no mapping from the bundle's.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: str = "auto",
        T_base_lidar: npt.NDArray[np.float64] | None = None,
        label_space: str | Path | None = None,
        intensity_mean: float | None = None,
        intensity_std: float | None = None,
        probabilities: bool = False,
    ) -> None:
        self.bundle = bundle
        self.preprocess = bundle.points.preprocess
        self.probabilities = probabilities
        self.intensity = IntensityScale(bundle.points.intensity, intensity_mean, intensity_std)
        self.rotation = None if T_base_lidar is None else np.asarray(T_base_lidar)[:3, :3].astype(np.float32)
        self.label_space = bundle.description.label_space
        self.merge: Float32 | None = None
        if label_space is not None:
            self.label_space = LabelSpace.load(label_space)
            self.merge = self.label_space.merge_matrix(bundle.description.label_space)
        self._engine = load_engine(bundle, engine)

    @classmethod
    def from_bundle(
        cls, name: str | Path, engine: str = "auto", T_base_lidar: npt.NDArray[np.float64] | None = None, **options: Any
    ) -> "Segmenter":
        """A segmenter of the bundle `name`: a folder, or a name in models/; `options` are as for the constructor."""
        return cls(Bundle.find(name), engine, T_base_lidar, **options)

    @property
    def engine(self) -> str:
        """Name and precision of the engine."""
        return f"{self._engine.name}-{self._engine.precision}"

    @property
    def voxel_size(self) -> float:
        """Voxel size in metres. The bundle's by default; may be set before any scan.

        Raises:
            UserError: on setting an invalid voxel size.
        """
        return self.preprocess.voxel_size

    @voxel_size.setter
    def voxel_size(self, size: float) -> None:
        if size == self.voxel_size:
            return
        try:
            self.preprocess = PreprocessConfig.model_validate(self.preprocess.model_dump() | {"voxel_size": size})
        except ValidationError as error:
            raise UserError(f"invalid voxel size {size}: {describe_invalid(error)}") from error

    def __call__(self, scan: Scan) -> Labels:
        """Label a scan of N points; those without a return, or beyond the view, are UNLABELLED with confidence 0.

        Raises:
            UserError: the scan is too large for the engine, or the engine fails or returns NaN or infinity.
        """
        start = perf_counter()
        valid = np.flatnonzero(scan.valid())
        xyz = scan.xyz.take(valid, axis=0)  # several times faster than an index
        intensity = self.intensity(None if scan.intensity is None else scan.intensity.take(valid), len(valid))
        if self.rotation is not None:
            xyz = xyz @ self.rotation.T
        voxels, grid = prepare(xyz, intensity, self.preprocess)
        intensity_unlikeness, strange = None, False
        gate, names = self.bundle.description.intensities, self.preprocess.features
        if gate is not None and scan.intensity is not None and "intensity" in names:
            voxels, intensity_unlikeness = strange_intensity.gated(voxels, column_of("intensity", names), gate)
            strange = intensity_unlikeness is not None and intensity_unlikeness > gate.threshold
        prepared = perf_counter()

        label = np.full(len(scan), UNLABELLED, dtype=np.uint8)
        confidence = np.zeros(len(scan), dtype=np.float32)
        every = np.zeros((len(scan), len(self.label_space.ids)), np.float32) if self.probabilities else None
        known = self.bundle.description.familiarity
        unlikeness, unfamiliar = None if known is None else float("inf"), ""  # without voxels
        inferred = prepared
        if grid is not None:
            temperature = np.float32(self.bundle.description.temperature)
            probabilities = softmax(self._logits(voxels) / temperature)  # (M, C)
            inferred = perf_counter()
            if known is not None:
                figures = familiarity.figures(xyz, voxels.xyz, probabilities)
                unlikeness = known.distance(figures)
                if unlikeness > known.threshold:
                    unfamiliar = familiarity.strangest(known, figures)
            if self.merge is not None:
                probabilities = probabilities @ self.merge
            best = probabilities.argmax(axis=1)  # (M,)
            seen = inside_fov(xyz, self.preprocess)
            if not seen.all():
                valid, xyz = valid[seen], xyz[seen]
            nearest = nearest_voxel(xyz, grid)
            label[valid] = self.label_space.ids[best].take(nearest)
            confidence[valid] = probabilities[np.arange(len(best)), best].take(nearest)
            if every is not None:
                every[valid] = probabilities.take(nearest, axis=0)
        done = perf_counter()
        return Labels(
            label=label,
            confidence=confidence,
            probabilities=every,
            unlikeness=unlikeness,
            unfamiliar=unfamiliar,
            intensity_unlikeness=intensity_unlikeness,
            strange_intensity=strange,
            voxels=len(voxels),
            voxel_size=self.voxel_size,
            stages_ms={
                "preprocess": 1e3 * (prepared - start),
                "network": 1e3 * (inferred - prepared),
                "backfill": 1e3 * (done - inferred),
            },
        )

    def _logits(self, voxels: Voxels) -> Float32:
        """(M, C) finite logits; NaN or infinity would silently become a label, so they raise UserError."""
        logits: Float32 = self._engine(voxels.inputs._asdict())["logits"]
        if not np.isfinite(logits).all():
            faulty = int(np.count_nonzero(~np.isfinite(logits).all(axis=1)))
            raise UserError(
                f"engine '{self.engine}' returned NaN or infinity for {faulty:,} of {len(voxels):,} voxels; use engine "
                "'cpu-fp32', or another model if that fails too: its weights do not suit these scans"
            )
        return logits
