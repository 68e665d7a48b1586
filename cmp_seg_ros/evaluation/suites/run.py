"""Runs a benchmark suite: scans are simulated and labelled building by building, on several processes, and counted.

A part, all buildings seen by one sensor at the same places, is kept in OUT/parts when it is done, and not done again
as long as nothing that it depends on has changed. Parts of several bundles, engines or settings live side by side.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from cmp_seg_ros import outputs, resources
from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.datasets import boxes, buildings, scene
from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.datasets.frame import TRUTH, Frame
from cmp_seg_ros.digest import digest
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.metrics import PRIMARY, STRICT, Confusion, readings
from cmp_seg_ros.evaluation.reliability import BINS, Reliability
from cmp_seg_ros.evaluation.suites.responses import respond
from cmp_seg_ros.evaluation.suites.suite import Row, Suite
from cmp_seg_ros.geometry.calibration import Transform
from cmp_seg_ros.intensity import IntensityScale
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Float32, Labels, Scan, UInt8
from cmp_seg_ros.segmenter import Segmenter
from cmp_seg_ros.simulation import scene_folder
from cmp_seg_ros.simulation.version import data_files
from cmp_seg_ros.workers import process_map

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

SCENES = "scenes"
DATA_VARIABLE = "CMP_SEG_SHARED_DATA"
PARTS = "parts"
LIBRARIES = ("numpy", "numba", "scipy", "embreex")  # that scans and labels are computed with


class Count(NamedTuple):
    """What one row has of one building and sensor."""

    points: Int64  # (bins of range, classes of the truth, classes of the labels + 1), as Confusion
    calibration: Float64  # (3, BINS), as Reliability
    scans: int
    voxels: int
    digest: str  # of the scans and their truth


class Part(NamedTuple):
    """The counts of a row with one sensor, over B buildings."""

    points: Int64  # (B, bins, C, C + 1)
    calibration: Float64  # (B, 3, BINS)
    scans: Int64  # (B,)
    voxels: Int64  # (B,)
    digest: str


@dataclass(frozen=True)
class Measure:
    """Counts one building at a time. Made once, copied to every worker.

    Args:
        suite: the benchmark suite.
        bundle, engine, voxel_size: what is measured; a voxel size of None is the bundle's.
        scenes: folder of furnished scenes.
    """

    suite: Suite
    bundle: Path
    engine: str
    voxel_size: float | None
    scenes: Path | None

    @cached_property
    def segmenter(self) -> Segmenter:
        segmenter = Segmenter.from_bundle(self.bundle, self.engine)
        segmenter.voxel_size = self.voxel_size or segmenter.voxel_size
        return segmenter

    def segmenter_of(self, T_base_lidar: Transform | None, statistics: tuple[float, float] | None = None) -> Segmenter:
        """The model on another lidar: each scan has its own unit, whose intensities are not known beforehand."""
        segmenter = copy(self.segmenter)
        segmenter.rotation = None if T_base_lidar is None else T_base_lidar[:3, :3].astype(np.float32)
        segmenter.intensity = IntensityScale(segmenter.bundle.points.intensity, *(statistics or ()))
        return segmenter

    @cached_property
    def truth(self) -> LabelSpace:
        return LabelSpace.load(self.suite.truth)

    def count(self, rows: dict[str, Row], sensor: str, building: int) -> dict[str, Count]:
        """Take the scans of one building with one sensor and count them for `rows`, which are of the same places."""
        mounts = list(dict.fromkeys(row.mount for row in rows.values()))
        points = {name: np.zeros(self._shape, np.int64) for name in rows}
        calibration = {name: np.zeros((3, BINS)) for name in rows}
        digests = [hashlib.sha256() for _ in mounts]
        voxels, scans = dict.fromkeys(rows, 0), 0
        frames = iter(self._frames(next(iter(rows.values())), sensor, building, mounts))
        for views in zip(*[frames] * len(mounts), strict=True):
            scans += 1
            for taken, frame in zip(digests, views, strict=True):
                assert frame.scan.intensity is not None
                label = frame.labels[TRUTH].label
                taken.update(frame.scan.xyz.tobytes() + frame.scan.intensity.tobytes() + label.tobytes())
            for name, row in rows.items():
                frame = views[mounts.index(row.mount)]
                labels: Labels = self.segmenter_of(frame.T_base_lidar, row.statistics)(shown(frame, row))
                truth = self.truth.id_map(frame.labels[TRUTH].space)[frame.labels[TRUTH].label]
                points[name] += self._confusions(frame.scan, truth, labels.label)
                calibration[name] += self._calibration(truth, labels)
                voxels[name] += labels.voxels
        by_mount = dict(zip(mounts, digests, strict=True))
        return {
            name: Count(points[name], calibration[name], scans, voxels[name], by_mount[row.mount].hexdigest())
            for name, row in rows.items()
        }

    def _frames(self, row: Row, sensor: str, seed: int, mounts: list[Any]) -> DataSet:
        """Scans of one building, each place in all mounts."""
        if row.boxes:
            return boxes.DataSet([seed], self.suite.scans, sensor, row.boxes)
        T_mounts = [None if mount is None else mount.T_base_lidar for mount in mounts]
        if row.scene:
            assert self.scenes is not None
            return scene.DataSet(self.scenes / row.scene, [seed], self.suite.scans, sensor, T_mounts, thinned=False)
        return buildings.DataSet([seed], self.suite.scans, sensor, T_mounts, thinned=False)

    @property
    def _shape(self) -> tuple[int, int, int]:
        confusion = Confusion(self.truth, self.segmenter.label_space)
        return (len(self.suite.range_bins), *confusion.matrix.shape)

    def _confusions(self, scan: Scan, truth: UInt8, label: UInt8) -> Int64:
        """(bins, C, C + 1) points by range from the lidar."""
        distance = np.linalg.norm(scan.xyz, axis=1)
        bin_ = np.searchsorted(self.suite.range_bins, distance, side="right") - 1
        counted = np.zeros(self._shape, np.int64)
        for i in range(len(counted)):
            confusion = Confusion(self.truth, self.segmenter.label_space)
            confusion.add(truth[bin_ == i], label[bin_ == i])
            counted[i] = confusion.matrix
        return counted

    @cached_property
    def _right(self) -> tuple[UInt8, UInt8]:
        """(256,) tables that bring ids of the truth and of the labels to places in the truth's classes."""
        known = self.segmenter.label_space
        same = self.truth.id_map(known) if self.truth.name == known.name or known.name in self.truth.mappings else None
        none = np.full(256, UNLABELLED, np.uint8)
        return self.truth.index_of_id, none if same is None else self.truth.index_of_id[same]

    def _calibration(self, truth: UInt8, labels: Labels) -> Float64:
        """(3, BINS) counts of a scan, in the truth's classes."""
        of_truth, of_labels = self._right
        true, said = of_truth[truth], of_labels[labels.label]
        known = (true != UNLABELLED) & (said != UNLABELLED)
        found = Reliability()
        found.add(labels.confidence[known], (true == said)[known])
        return found.counts


def shown(frame: Frame, row: Row) -> Scan:
    """A frame's scan as a row shows it to the network."""
    intensity: Float32 | None = frame.scan.intensity if row.intensity else None
    if row.response:
        seed = zlib.crc32(f"{row.response} {frame.key}".encode())
        intensity = respond(row.response, frame, np.random.default_rng(seed))
    return Scan(frame.scan.xyz, intensity, shape=frame.scan.shape)


class SuiteRun:
    """One run of a benchmark suite; `run` counts all its parts.

    Args:
        suite: the benchmark suite.
        model, engine: of the segmenter.
        voxel_size: metres; None is the bundle's.
        only: names of rows, with those that they are compared with; empty for all.
        buildings: the first so many; None for all.
        scenes: folder of furnished scenes; None looks for `scenes` in $CMP_SEG_SHARED_DATA.
        out: folder that keeps parts.
        processes: None takes one a processor.

    Raises:
        UserError: a row that is none, a model that cannot be loaded or whose labels cannot be compared.
    """

    def __init__(
        self,
        suite: Suite,
        model: str | Path,
        engine: str = "auto",
        voxel_size: float | None = None,
        only: Iterable[str] = (),
        buildings: int | None = None,
        scenes: Path | None = None,
        out: Path | None = None,
        processes: int | None = None,
    ) -> None:
        chosen = set(only) or set(suite.rows)
        if unknown := sorted(chosen - set(suite.rows)):
            raise UserError(f"suite {suite.name} has no row {', '.join(unknown)}; its rows: {', '.join(suite.rows)}")
        chosen |= {suite.rows[name].against for name in chosen}
        if buildings is not None and not 0 < buildings <= suite.buildings.count:
            raise UserError(f"suite {suite.name} has {suite.buildings.count} buildings; give --buildings up to that")
        self.suite = suite
        bundle = Bundle.find(model)
        self.scenes = scenes or default_scenes()
        self.rows = {name: row for name, row in suite.rows.items() if name in chosen}
        self.skipped = {name: reason for name, row in self.rows.items() if (reason := self._missing(row, scenes))}
        self.rows = {name: row for name, row in self.rows.items() if name not in self.skipped}
        if not self.rows:
            raise UserError(f"nothing of suite {suite.name} can be run: {'; '.join(self.skipped.values())}")
        first = suite.buildings.first
        self.buildings = range(first, first + (buildings or suite.buildings.count))
        self.measure = Measure(suite, bundle.path, engine, voxel_size, self.scenes)
        self.segmenter = self.measure.segmenter  # complains before the work, and builds what workers then find
        readings(Confusion(self.measure.truth, self.segmenter.label_space), (PRIMARY, STRICT))
        self.out = out
        self.processes = processes or len(os.sched_getaffinity(0))
        # Now: what is edited during the work is not what counted.
        self.keys = {row.places: self._key(row.scene) for row in self.rows.values()}

    @property
    def count(self) -> int:
        """Steps of `run`: buildings, by sensor and place."""
        return len(self._jobs()) * len(self.buildings)

    def run(self, progress: Callable[[int], None] = lambda done: None) -> dict[str, dict[str, Part]]:
        """Parts by row and sensor."""
        found: dict[str, dict[str, Part]] = {name: {} for name in self.rows}
        open_ = []
        for places, sensor in self._jobs():
            kept = self._kept(places, sensor)
            if kept is None:
                open_.append((places, sensor))
                continue
            for name, part in kept.items():
                found[name][sensor] = part
        done = self.count - len(open_) * len(self.buildings)
        progress(done)
        if open_:
            for places, sensor, counts in self._counted(open_, lambda now: progress(done + now)):
                for name in counts[0]:
                    found[name][sensor] = _part([count[name] for count in counts])
                self._keep(places, sensor, {name: found[name][sensor] for name in counts[0]})
        return {
            name: {sensor: found[name][sensor] for sensor in self.suite.sensors_of(row)}
            for name, row in self.rows.items()
        }

    def _jobs(self) -> list[tuple[str, str]]:
        rows = self.rows.values()
        return list(dict.fromkeys((row.places, sensor) for row in rows for sensor in self.suite.sensors_of(row)))

    def _rows_of(self, places: str, sensor: str) -> dict[str, Row]:
        rows = self.rows.items()
        return {name: row for name, row in rows if row.places == places and sensor in self.suite.sensors_of(row)}

    def _counted(
        self, jobs: list[tuple[str, str]], progress: Callable[[int], None]
    ) -> Iterator[tuple[str, str, list[dict[str, Count]]]]:
        """Each job when it is done: places, sensor, and the counts of all buildings in order."""
        tasks = [
            (self._rows_of(places, sensor), sensor, building) for places, sensor in jobs for building in self.buildings
        ]
        results: Iterable[dict[str, Count]]
        if self.processes == 1:
            results = starmap(self.measure.count, tasks)
        else:
            results = process_map(_count, tasks, self.processes, _begin, (replace(self.measure),))
        counts: list[dict[str, Count]] = []
        for done, count in enumerate(results, 1):
            counts.append(count)
            progress(done)
            if done % len(self.buildings) == 0:
                yield *jobs[done // len(self.buildings) - 1], counts
                counts = []

    def _missing(self, row: Row, scenes: Path | None) -> str:
        """Why a row cannot be run; empty if it can."""
        if not row.scene:
            return ""
        if self.scenes is None:
            return f"scene {row.scene}: give --data FOLDER, or set {DATA_VARIABLE} to the folder that holds `{SCENES}`"
        if not (self.scenes / row.scene).is_dir():
            if scenes is not None:
                raise UserError(f"{scenes} has no scene {row.scene}; give --data the folder that holds `{SCENES}`")
            return f"scene {row.scene} is not in {self.scenes}; give --data FOLDER"
        return ""

    # Finished parts.

    def _kept(self, places: str, sensor: str) -> dict[str, Part] | None:
        path, rows = self._file(places, sensor), self._rows_of(places, sensor)
        if path is None or not path.is_file():
            return None
        try:
            with np.load(path) as file:
                if str(file["key"]) != self.keys[places] or any(f"{name}.points" not in file for name in rows):
                    return None
                return {
                    name: Part(
                        file[f"{name}.points"],
                        file[f"{name}.calibration"],
                        file[f"{name}.scans"],
                        file[f"{name}.voxels"],
                        str(file[f"{name}.digest"]),
                    )
                    for name in rows
                }
        except (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error):  # damaged: do it again
            return None

    def _keep(self, places: str, sensor: str, parts: dict[str, Part]) -> None:
        path = self._file(places, sensor)
        if path is None:
            return
        arrays = {f"{name}.{field}": value for name, part in parts.items() for field, value in part._asdict().items()}
        with outputs.writing(path.parent):
            temporary = path.with_suffix(f".{os.getpid()}.tmp.npz")
            np.savez_compressed(temporary, key=self.keys[places], **arrays)
            temporary.replace(path)

    def _file(self, places: str, sensor: str) -> Path | None:
        return None if self.out is None else self.out / PARTS / f"{places}-{sensor}-{self.keys[places][:8]}.npz"

    def _key(self, scene: str) -> str:
        """Changes with all that the counts depend on: suite, bundle, engine, voxels, buildings, scene, program."""
        program = [*Path(__file__).resolve().parents[1].rglob("*.py"), *data_files()]
        program.append(resources.resource(scene_folder.TABLE))
        settings = {
            "suite": self.suite.model_dump(exclude={"description", "bootstrap", "musts"}),
            "bundle": self.segmenter.bundle.hash,
            "engine": self.segmenter.engine,
            "voxel_size": self.segmenter.voxel_size,
            "buildings": list(self.buildings),
            "scene": digest(_files(self.scenes / scene)) if self.scenes and scene else "",
            "program": digest(program, *map(_version, LIBRARIES)),
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _version(library: str) -> str:
    """Empty where it is not installed, which the simulator complains about in its own words."""
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def default_scenes() -> Path | None:
    """The folder of furnished scenes in the shared data; None where that is not known."""
    data = os.environ.get(DATA_VARIABLE)
    return Path(data) / SCENES if data else None


def _part(counts: list[Count]) -> Part:
    taken = hashlib.sha256("".join(count.digest for count in counts).encode())
    return Part(
        np.stack([count.points for count in counts]),
        np.stack([count.calibration for count in counts]),
        np.array([count.scans for count in counts]),
        np.array([count.voxels for count in counts]),
        taken.hexdigest(),
    )


# In a worker.
_measure: Measure


def _begin(measure: Measure) -> None:
    global _measure
    _measure = measure


def _count(task: tuple[dict[str, Row], str, int]) -> dict[str, Count]:
    return _measure.count(*task)
