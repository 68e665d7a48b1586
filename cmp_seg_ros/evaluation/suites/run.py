"""Runs a benchmark suite: scans are simulated and labelled building by building, on several processes, and counted.

A part, all buildings seen by one sensor at the same places, is kept in OUT/parts when it is done, and not done again
as long as nothing that it depends on has changed. Parts of several bundles, engines or settings live side by side.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from cmp_seg_ros import outputs, resources
from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.datasets.frame import TRUTH
from cmp_seg_ros.digest import digest
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.metrics import PRIMARY, STRICT, Confusion, readings
from cmp_seg_ros.evaluation.pipeline import Model, Result, results_of_parts
from cmp_seg_ros.evaluation.reliability import BINS, Reliability
from cmp_seg_ros.evaluation.suites.recordings import TEACHER, Recording, score
from cmp_seg_ros.evaluation.suites.scans import Scans
from cmp_seg_ros.evaluation.suites.suite import Row, Suite
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Labels, Scan, UInt8
from cmp_seg_ros.simulation import scene_folder
from cmp_seg_ros.simulation.version import data_files
from cmp_seg_ros.teachers.base import cards, folder, open_teacher

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

SCENES = "scenes"
DATA_VARIABLE = "CMP_SEG_SHARED_DATA"
PARTS = "parts"
NOT_COUNTING = ("adaptation", "cli", "nodes", "ros", "training")  # folders that change no count
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


class Counter:
    """Counts the results of one building for each row of its scans: the ending of a suite, in every worker.

    Args:
        suite: what is run.
        predicted: label space of the labels.
    """

    def __init__(self, suite: Suite, predicted: LabelSpace) -> None:
        self.suite, self.truth, self.predicted = suite, LabelSpace.load(suite.truth), predicted
        self.shape = (len(suite.range_bins), *Confusion(self.truth, predicted).matrix.shape)
        same = self.truth.name == predicted.name or predicted.name in self.truth.mappings
        none = np.full(256, UNLABELLED, np.uint8)
        self._said = self.truth.index_of_id[self.truth.id_map(predicted)] if same else none  # ids to true classes

    def __call__(self, scans: DataSet, results: Iterator[Result]) -> dict[str, Count]:
        """By row. Raises UserError where a scan cannot be labelled."""
        assert isinstance(scans, Scans)
        points = {name: np.zeros(self.shape, np.int64) for name in scans.rows}
        calibration = {name: np.zeros((3, BINS)) for name in scans.rows}
        voxels, count = dict.fromkeys(scans.rows, 0), dict.fromkeys(scans.rows, 0)
        for result in results:
            frame, labels = result.frame, result.labels
            if labels is None:
                raise UserError(f"scan {frame.key} of suite {self.suite.name}: {result.skipped}")
            name = frame.key.partition("/")[0]
            truth = self.truth.id_map(frame.labels[TRUTH].space)[frame.labels[TRUTH].label]
            points[name] += self.confusions(frame.scan, truth, labels.label)
            calibration[name] += self.calibration(truth, labels)
            voxels[name] += labels.voxels
            count[name] += 1
        return {
            name: Count(points[name], calibration[name], count[name], voxels[name], scans.digests[name])
            for name in scans.rows
        }

    def confusions(self, scan: Scan, truth: UInt8, label: UInt8) -> Int64:
        """(bins, C, C + 1) points by range from the lidar."""
        bin_ = np.searchsorted(self.suite.range_bins, np.linalg.norm(scan.xyz, axis=1), side="right") - 1
        return Confusion(self.truth, self.predicted).count(truth, label, bin_, len(self.suite.range_bins))

    def calibration(self, truth: UInt8, labels: Labels) -> Float64:
        """(3, BINS) counts of a scan, in the truth's classes."""
        true, said = self.truth.index_of_id[truth], self._said[labels.label]
        known = (true != UNLABELLED) & (said != UNLABELLED)
        found = Reliability()
        found.add(labels.confidence[known], (true == said)[known])
        return found.counts


class SuiteRun:
    """One run of a benchmark suite; `run` counts all its parts.

    Args:
        suite: the benchmark suite.
        model, engine: of the segmenter.
        voxel_size: metres; None is the bundle's.
        only: names of rows, with those that they are compared with; empty for all.
        buildings: the first so many; None for all.
        data: folder of third-party data, with furnished scenes in `scenes`; None takes $CMP_SEG_SHARED_DATA.
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
        data: Path | None = None,
        out: Path | None = None,
        processes: int | None = None,
    ) -> None:
        known = [*suite.rows, *suite.recordings]
        chosen = set(only) or set(known)
        if unknown := sorted(chosen - set(known)):
            raise UserError(f"suite {suite.name} has no row {', '.join(unknown)}; its rows: {', '.join(known)}")
        chosen |= {row.against for name, row in suite.rows.items() if name in chosen}
        if buildings is not None and not 0 < buildings <= suite.buildings.count:
            raise UserError(f"suite {suite.name} has {suite.buildings.count} buildings; give --buildings up to that")
        self.suite = suite
        bundle = Bundle.find(model)
        shared = os.environ.get(DATA_VARIABLE)
        self.data = data or (Path(shared) if shared else None)
        self.scenes = self.data and self.data / SCENES
        every = {name: row for name, row in (suite.rows | suite.recordings).items() if name in chosen}
        self.skipped = {name: reason for name, row in every.items() if (reason := self._missing(row, data))}
        wanted = every.keys() - self.skipped
        self.rows = {name: row for name, row in suite.rows.items() if name in wanted}
        self.recordings = {name: row for name, row in suite.recordings.items() if name in wanted}
        if not self.rows and not self.recordings:
            raise UserError(f"nothing of suite {suite.name} can be run: {'; '.join(self.skipped.values())}")
        first = suite.buildings.first
        self.buildings = range(first, first + (buildings or suite.buildings.count))
        self.labeller = Model(bundle.path, engine, voxel_size=voxel_size)
        self.segmenter = self.labeller.segmenter  # raises errors before the work, and builds engines for the workers
        self.counter = Counter(suite, self.segmenter.label_space)
        readings(Confusion(self.counter.truth, self.segmenter.label_space), (PRIMARY, STRICT))
        self.out = out
        self.processes = processes or len(os.sched_getaffinity(0))
        # Now: what is edited during the work is not what counted.
        self.keys = {row.places: self._key(self._scene(row)) for row in self.rows.values()}

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

    def scans(self, places: str, sensor: str) -> Scans:
        """All scans of one sensor at the same places."""
        return Scans(self.suite, self._rows_of(places, sensor), sensor, self.buildings, self.scenes)

    def _counted(
        self, jobs: list[tuple[str, str]], progress: Callable[[int], None]
    ) -> Iterator[tuple[str, str, list[dict[str, Count]]]]:
        """Each job when it is done: places, sensor, and the counts of all buildings in order."""
        parts = chain.from_iterable(self.scans(*job).parts() for job in jobs)
        results = results_of_parts(parts, self.labeller, self.counter, self.processes)
        counts: list[dict[str, Count]] = []
        for done, count in enumerate(results, 1):
            counts.append(count)
            progress(done)
            if done % len(self.buildings) == 0:
                yield *jobs[done // len(self.buildings) - 1], counts
                counts = []

    def run_recordings(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and figures of each row on real scans, as JSON takes them. Raises UserError."""
        teacher = None
        for name, row in self.recordings.items():
            assert self.data is not None
            key = self._key(self.data / row.path, row)
            kept = self.out and self.out / PARTS / f"{name}-{key[:8]}.json"
            if kept and kept.is_file():
                yield name, json.loads(kept.read_text())
                continue
            if row.teacher and teacher is None:
                teacher = open_teacher(TEACHER)
            found = score(row, self.data, self.labeller, teacher)
            if kept:
                with outputs.writing(kept.parent):
                    outputs.write_whole(kept, json.dumps(found).encode())
            yield name, found

    def _missing(self, row: Row | Recording, given: Path | None) -> str:
        """Why a row cannot be run; empty if it can. Raises UserError where the given folder has not its scene."""
        if isinstance(row, Recording):
            name = path = row.path
        elif row.scene:
            name, path = f"scene {row.scene}", f"{SCENES}/{row.scene}"
        else:
            return ""
        if self.data is None or not (self.data / path).exists():
            if given is not None and isinstance(row, Row):
                raise UserError(f"{given} has no {name}; give --data the folder that holds `{SCENES}`")
            where = f"not in {self.data}; " if self.data else ""
            return f"{name}: {where}give --data FOLDER, or set {DATA_VARIABLE} to the folder that holds `{path}`"
        if isinstance(row, Recording) and row.teacher and not (folder() / cards()[TEACHER].file).exists():
            return f"teacher {TEACHER} is not in {folder()} ({cards()[TEACHER].source})"
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
                parts = {name: Part._make(file[f"{name}.{field}"] for field in Part._fields) for name in rows}
                return {name: part._replace(digest=str(part.digest)) for name, part in parts.items()}
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

    def _scene(self, row: Row) -> Path | None:
        return self.scenes / row.scene if self.scenes and row.scene else None

    def _key(self, folder: Path | None, recording: Recording | None = None) -> str:
        """Changes with all that the counts depend on: suite, bundle, engine, voxels, buildings, files, program."""
        program = [*program_files(), *data_files(), resources.resource(scene_folder.TABLE)]
        settings = {
            "suite": recording.model_dump(exclude={"false_person"})
            if recording
            else self.suite.model_dump(exclude={"description", "bootstrap", "musts", "recordings"}),
            "bundle": self.segmenter.bundle.hash,
            "engine": self.segmenter.engine,
            "voxel_size": self.segmenter.voxel_size,
            "buildings": list(self.buildings),
            "files": digest(_files(folder)) if folder else "",
            "program": digest(program, *map(_version, LIBRARIES)),
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def program_files() -> list[Path]:
    """The source files that may decide what is counted: all but commands, nodes and training."""
    package = Path(__file__).resolve().parents[2]
    return [path for path in package.rglob("*.py") if path.relative_to(package).parts[0] not in NOT_COUNTING]


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]


def _version(library: str) -> str:
    """Empty where it is not installed, of which the simulator informs the user."""
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _part(counts: list[Count]) -> Part:
    points, calibration, scans, voxels, digests = zip(*counts, strict=True)
    taken = hashlib.sha256("".join(digests).encode()).hexdigest()
    return Part(np.stack(points), np.stack(calibration), np.array(scans), np.array(voxels), taken)
