"""Labels every scan of an input: files of labels, labelled clouds, pictures, a report."""

from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros import outputs
from cmp_seg_ros.datasets import bag, ply
from cmp_seg_ros.datasets.base import Problems, Reader, Sample
from cmp_seg_ros.datasets.labelled_bag import BAG, LabelledBagWriter
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation import plots, session
from cmp_seg_ros.evaluation.metrics import percentiles, stage_percentiles
from cmp_seg_ros.scan import UNLABELLED, Labels
from cmp_seg_ros.segmenter import Segmenter

PICTURES = 5  # of scans, the overview included
NUMBERED = {"scans": ".npz", "clouds": ".ply", "pictures": ".png"}  # folders of files of a scan, NNNNNN.*


class Labelling:
    """One run over an input; `run` leaves its results in `out`.

    Args:
        reader: of the input.
        segmenter, rig: the model, and the sensors it is used with.
        out: folder. It receives scans/NNNNNN.npz, labelled/ (a bag), clouds/NNNNNN.ply where the input is files,
            overview.png, pictures/NNNNNN.png, report.json.
        max_scans: stop after so many.
    """

    def __init__(
        self, reader: Reader, segmenter: Segmenter, rig: session.Rig, out: Path, max_scans: int | None = None
    ) -> None:
        self.reader = reader
        self.segmenter = segmenter
        self.rig = rig
        self.out = out
        self.total = reader.count if max_scans is None else min(max_scans, reader.count or max_scans)
        self.max_scans = max_scans
        self.problems = Problems()
        self.warnings = Problems()
        self.points: list[int] = []  # of each scan
        self.voxels: list[int] = []
        self.stages_ms: list[dict[str, float]] = []
        self.counts = np.zeros(256, dtype=np.int64)
        self.unlabelled: list[str] = []  # keys of the scans without any label

    def run(self, progress: Callable[[int], None] = lambda done: None) -> dict[str, Any]:
        """Label all scans and return the report.

        Raises UserError if there is none, or if `out` holds what another program has put where the results go.
        """
        samples = iter(self.reader)
        first = next(samples, None)  # before anything is replaced
        if first is None:
            problems = "; ".join(self.reader.problems)
            raise UserError(problems or f"{self.reader.path} holds no scans; record it again")
        outputs.claim(self.out, "label", (outputs.REPORT, *NUMBERED, BAG), self.reader.path)
        with outputs.writing(self.out):
            for folder, suffix in NUMBERED.items():
                for leftover in (self.out / folder).glob("[0-9]" * 6 + suffix):
                    leftover.unlink()
            outputs.remove_bag(self.out / BAG)
            self._label_all(chain([first], samples), progress)
            for problem in self.reader.problems:
                self.problems.add(problem)
            report = self._report()
            outputs.write_report(self.out, report)
            return report

    def _label_all(self, samples: Iterable[Sample], progress: Callable[[int], None]) -> None:
        (self.out / "scans").mkdir(exist_ok=True)
        with LabelledBagWriter(self.out / BAG, self.segmenter.label_space) as clouds:
            for done, sample in enumerate(samples):
                labels = self.segmenter(sample.scan)
                for finding in session.check(sample, labels, self.segmenter, self.rig, self.reader.path):
                    (self.problems if finding.serious else self.warnings).add(finding.text, finding.kind)
                self._write(sample, labels, clouds)
                self._draw(sample, labels, done)
                self._count(sample, labels)
                progress(done + 1)
                if done + 1 == self.max_scans:
                    break

    def _write(self, sample: Sample, labels: Labels, clouds: LabelledBagWriter) -> None:
        clouds.write(sample.message, labels)
        name = f"{sample.number:06d}"
        np.savez_compressed(
            self.out / "scans" / f"{name}.npz",
            label=labels.label,
            confidence=labels.confidence,
            key=sample.key,
            stamp=sample.scan.stamp,
        )
        if self.reader.one_file_each:
            (self.out / "clouds").mkdir(exist_ok=True)
            ply.write_labelled(self.out / "clouds" / f"{name}.ply", sample.scan, labels, self.segmenter.label_space)

    def _draw(self, sample: Sample, labels: Labels, done: int) -> None:
        step = max(1, -(-self.total // PICTURES)) if self.total else 0
        chosen = done % step == 0 if step else done & (done + 1) == 0 and done < 2**PICTURES  # 0, 1, 3, 7, 15
        if not chosen:
            return
        camera = self.rig.camera()
        source = self.reader.bag if isinstance(self.reader, bag.Reader) else None
        try:
            image = session.image_of(sample, self.reader.path, source, self.rig.lidar) if camera else None
        except UserError as error:
            self.problems.add(str(error))
            image = None
        if camera and image is not None and image.shape[:2] != (camera.height, camera.width):
            height, width = image.shape[:2]
            self.problems.add(
                f"the image of {session.name_of(sample, self.reader.path)} is {width} x {height} pixels, calibration "
                f"{self.rig.file} says {camera.width} x {camera.height}: not drawn; calibrate this camera at its size"
            )
            image = None
        path = self.out / ("overview.png" if done == 0 else f"pictures/{sample.number:06d}.png")
        plots.overview(
            path,
            sample.scan,
            labels,
            self.segmenter.label_space,
            image,
            camera,
            None if camera is None else np.array(camera.T_camera_lidar),
            self.rig.T_base_lidar,
            title=f"{session.name_of(sample, Path(self.reader.path.name))}: {session.describe(sample.scan)}",
        )

    def _count(self, sample: Sample, labels: Labels) -> None:
        self.counts += np.bincount(labels.label, minlength=256)
        self.points.append(len(labels.label))
        if not labels.voxels:  # the network has not run: no figure of its size or time
            self.unlabelled.append(sample.key)
            return
        self.voxels.append(labels.voxels)
        self.stages_ms.append(labels.stages_ms)

    def _report(self) -> dict[str, Any]:
        space = self.segmenter.label_space
        points = sum(self.points)
        return {
            "command": "label",
            "input": str(self.reader.path),
            "topic": self.reader.topic or None,
            "scans": len(self.points),
            "points": points,
            "points_per_scan": float(np.median(self.points)),
            "voxels_per_scan": float(np.median(self.voxels)) if self.voxels else 0.0,
            "voxel_size": self.segmenter.voxel_size,
            "share": session.shares(self.counts[space.ids].tolist(), space.names),
            "unlabelled": float(self.counts[UNLABELLED] / max(1, points)),
            "scans_without_labels": self.unlabelled,
            "latency_ms": percentiles([sum(stages.values()) for stages in self.stages_ms], (50, 95)),
            "stages_ms": stage_percentiles(self.stages_ms, (50, 95)),
            "model": self.segmenter.bundle.description.name,
            "engine": self.segmenter.engine,
            "label_space": space.name,
            "calibration": None if self.rig.file is None else str(self.rig.file),
            "warnings": list(self.warnings),
            "problems": list(self.problems),
        }
