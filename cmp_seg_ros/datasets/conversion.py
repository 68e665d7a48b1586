"""`cmp-seg convert`: any data sets into one set of the unified form (see `unified`).

A source is cut into parts of PART scans. A part is the unit of work: it has shards of its own and a manifest, which is
written last, so that a run that was broken off anywhere goes on with the next part, whichever process or machine works
on it, and ends with the same bytes. The index, with the splits, is put together from the manifests at the end.
"""

import io
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from itertools import accumulate, chain, groupby
from pathlib import Path
from platform import node
from shutil import rmtree
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from cmp_seg_ros import outputs
from cmp_seg_ros.datasets import Folder, open_input, shards, unified
from cmp_seg_ros.datasets.base import DataSet, Problems
from cmp_seg_ros.datasets.frame import Frame
from cmp_seg_ros.datasets.splits import split
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import Transform
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.geometry.track import pose_of
from cmp_seg_ros.outputs import REPORT
from cmp_seg_ros.workers import spread

PART = 200  # scans
COMMAND = "convert"
CALIBRATE = "give --calibration with their T_camera_lidar, or --no-images to convert the scans alone"


@dataclass(frozen=True)
class Source:
    """A data set to be converted, in words that another process or machine can open it by.

    Args:
        name: of its sequence in the unified set; unique there.
        path, topic, calibration, lidar, columns: as for `open_input`.
        is_unified: it has sequences of its own, whose names get `prefix`.
    """

    name: str
    path: str
    topic: str = ""
    calibration: str = ""
    lidar: str = ""
    columns: str = ""
    is_unified: bool = False
    prefix: str = ""
    with_images: bool = True

    def open(self) -> DataSet:
        """Raises UserError."""
        return open_input(Path(self.path), self.topic, self.sensors(), self.columns)

    def sensors(self) -> SensorSet:
        """Raises UserError."""
        return SensorSet.around(Path(self.path), Path(self.calibration) if self.calibration else None, self.lidar)

    def described(self) -> dict[str, Any]:
        """What decides its scans in the unified set, calibration included. Raises UserError."""
        file = self.sensors().file
        checksum = None if file is None else shards.sha256(file.read_bytes())
        return asdict(self) | {"calibration": checksum}


class Job(NamedTuple):
    """What one worker converts: part number `part` of a source, scans `start` to before `stop`; None: all parts."""

    source: Source
    part: int | None = None
    start: int = 0
    stop: int = 0


def jobs_of(source: Source, data: DataSet) -> Iterator[Job]:
    """A job for each part where parts can be read by themselves, else for the source."""
    if not data.seeks:
        yield Job(source)
        return
    for part, start in enumerate(range(0, len(data), PART)):
        yield Job(source, part, start, min(start + PART, len(data)))


def sources_of(
    paths: Sequence[Path],
    topic: str = "",
    calibration: Path | None = None,
    lidar: str = "",
    columns: str = "",
    with_images: bool = True,
) -> list[Source]:
    """What is to be converted: each input, and of a folder of bags each bag. What cannot be opened is a source, too.

    Raises:
        UserError: there is no such input.
    """
    sources: list[Source] = []
    taken: set[str] = set()  # names of sequences
    for path in paths:
        keeps_its_own = len(paths) > 1 and unified.DataSet.recognises(path)  # a set, merged with recordings
        given = "" if calibration is None or keeps_its_own else str(calibration.resolve())
        own = Source("", str(path.resolve()), topic, given, lidar, columns, with_images=with_images)
        data = None
        try:
            data = own.open()
        except UserError:
            if len(paths) == 1 or not path.exists():
                raise
        if isinstance(data, unified.DataSet):
            name = _new_name(plain(path.name), {source.name for source in sources})
            sequences = {entry.sequence for entry in data.entries}
            prefix = f"{name}-" if sequences & taken else ""
            sources.append(replace(own, name=name, is_unified=True, prefix=prefix))
            taken |= {prefix + sequence for sequence in sequences}
            continue
        files = [path]
        if isinstance(data, Folder) and not data.seeks:
            files = list(data.files)
            own = replace(own, calibration=str(SensorSet.around(path, calibration, lidar).file or ""))
        for file in files:
            name = _new_name(plain(file.name if file.is_dir() else file.stem), taken)
            sources.append(replace(own, name=name, path=str(file.resolve())))
            taken.add(name)
    return sources


def _new_name(name: str, taken: Collection[str]) -> str:
    return next(one for one in chain([name], (f"{name}-{number}" for number in range(2, 10**6))) if one not in taken)


def plain(name: str) -> str:
    """A name for files: without dots, which end keys, and whatever else needs care."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60] or "_"


def convert(job: Job, out: Path) -> Iterator[int]:
    """Write the parts of a job that are missing; yields the number of scans of each part that is there.

    Raises:
        UserError: the source cannot be read, or `out` not be written.
    """
    if job.part is not None and manifest(out, job.source, job.part).is_file():
        yield job.stop - job.start
        return
    data = _opened(job.source)
    parts: Iterable[tuple[int, Iterable[Frame]]] = groupby(data.stretch(0), key=lambda frame: frame.number // PART)
    if job.part is not None:
        parts = [(job.part, data.stretch(job.start, job.stop))]
    with outputs.writing(out):
        for part, frames in parts:
            if manifest(out, job.source, part).is_file():
                yield sum(1 for _ in frames)
            else:
                yield _write_part(out, job.source, part, frames, data)


@lru_cache(maxsize=1)
def _opened(source: Source) -> DataSet:
    """A process works on many parts of a source, and knows its stamps from the first on."""
    return source.open()


def manifest(out: Path, source: Source, part: int) -> Path:
    return out / shards.PARTS / f"{source.name}-{part:05d}.json"


def _write_part(out: Path, source: Source, part: int, frames: Iterable[Frame], data: DataSet) -> int:
    """Write the shards of a part, then its manifest; returns the number of scans. Raises UserError, OSError."""
    noted = [Counter(found.counts()) for found in (data.problems, data.notes)]
    entries: list[shards.Entry] = []
    gaps: dict[str, list[int | None]] = defaultdict(list)  # ns from a scan to its image, by camera; None without stamps
    with shards.ShardWriter(out / shards.SHARDS, f"{source.name}-{part:05d}") as writer:
        for frame in frames:
            if not source.with_images:
                frame = replace(frame, images={})
            entry = _entry(frame, source)
            files = files_of(frame, entry.sequence, data.problems)
            for labels in frame.labels.values():
                shards.keep_space(out, labels.space)
            entries.append(writer.add(entry, files))
            for camera, image in frame.images.items():
                if f"{camera}.jpg" in files:
                    timed = image.stamp and frame.scan.stamp
                    gaps[camera].append(image.stamp - frame.scan.stamp - frame.camera_offset if timed else None)
    problems, notes = (
        Counter(found.counts()) - before for found, before in zip((data.problems, data.notes), noted, strict=True)
    )
    about = {"entries": [entry._asdict() for entry in entries], "gaps": gaps, "problems": problems, "notes": notes}
    outputs.write_whole(manifest(out, source, part), json.dumps(about, separators=(",", ":")).encode())
    return len(entries)


def _entry(frame: Frame, source: Source) -> shards.Entry:
    """What the index says of a frame, without its place."""
    key = f"{source.prefix}{frame.key}"
    if not source.is_unified:
        part, _, name = frame.key.rpartition("/")
        key = f"{source.name}{part and '-' + plain(part)}/{plain(name)}"
    pose = None if frame.T_world_lidar is None else pose_of(frame.T_world_lidar)
    return shards.Entry(key, "", 0, 0, "", {}, frame.scan.stamp, len(frame.scan), pose, frame.split)


def files_of(frame: Frame, sequence: str, problems: Problems) -> dict[str, bytes]:
    """The files of a scan, by what follows KEY. in their names; an image that cannot be read is left out and noted."""
    scan = frame.scan
    columns = dict(zip(shards.FIELDS, (*scan.xyz.T, scan.intensity, scan.time), strict=True))
    points = np.full((len(scan), len(shards.FIELDS)), np.nan, np.float32)
    for number, values in enumerate(columns.values()):
        if values is not None:
            points[:, number] = values
    content = io.BytesIO()
    np.save(content, points)
    files = {shards.POINTS: content.getvalue()}
    cameras = {}
    for name, image in frame.images.items():
        if image.camera is None:
            raise UserError(f"camera '{name}' of scan {frame.key} is not calibrated; {CALIBRATE}")
        try:
            files[f"{plain(name)}.jpg"] = image.jpeg()
        except UserError as error:
            problems.add(f"an image is left out: {error}", f"image of {name}")
            continue
        camera = image.camera.model_dump(mode="json", exclude_none=True)
        cameras[plain(name)] = {"stamp": image.stamp, "camera": camera}
    if frame.labels:
        files[shards.LABEL_FILE] = shards.pack_labels(frame.labels)
    about = {
        "stamp": scan.stamp,
        "frame_id": scan.frame_id,
        "shape": scan.shape,
        "fields": [name for name, values in columns.items() if values is not None],
        "cameras": cameras,
        "camera_offset": frame.camera_offset,
        "T_world_lidar": _rows(frame.T_world_lidar),
        "T_base_lidar": _rows(frame.T_base_lidar),
        "intensity_statistics": frame.intensity_statistics,
        "sequence": sequence,
        "group": frame.group,
    }
    files[shards.ABOUT] = (json.dumps(about) + "\n").encode()
    return files


def _rows(matrix: Transform | None) -> list[list[float]] | None:
    return None if matrix is None else matrix.tolist()


class Conversion:
    """All of it: `run` until it ends, then `finish`.

    Args:
        leave_out: go on without sources that cannot be opened, as long as there is another.

    Attributes:
        left_out: why sources cannot be opened.
        total: number of scans, where it is known without reading them; else None.
        is_finished: whether there is nothing to do.

    Raises:
        UserError: a source cannot be opened, or none; `out` holds something else, or other sources, or cannot be
            written.
    """

    def __init__(self, sources: Sequence[Source], out: Path, leave_out: bool = False) -> None:
        _opened.cache_clear()  # of an earlier conversion, since which files may have changed
        self.sources, self.out = list[Source](), out
        self.left_out: list[str] = []
        jobs: list[Job] = []
        self._noted: list[dict[str, dict[str, int]]] = []  # when the sources were opened
        outputs.require_writable(out, COMMAND, (REPORT, shards.INDEX, shards.SHARDS, shards.PARTS, shards.SPACES))
        for source in sources:
            try:
                data = source.open()
            except UserError as error:
                self.left_out.append(str(error))
                continue
            if data.uncalibrated and source.with_images:
                raise UserError(f"{data.uncalibrated}; {CALIBRATE}")
            self.sources.append(source)
            jobs += jobs_of(source, data)
            self._noted.append({"problems": data.problems.counts(), "notes": data.notes.counts()})
        if self.left_out and not (leave_out and self.sources):
            raise UserError("; ".join(dict.fromkeys(self.left_out)))
        self._about = [source.described() for source in self.sources]
        report = json.loads((out / REPORT).read_text()) if (out / REPORT).is_file() else None
        if report is not None:
            self._require_same(report)
        self.is_finished = bool(report and report["finished"])
        self.jobs = [] if self.is_finished else jobs
        is_known = all(job.part is not None for job in self.jobs)
        self.total = sum(job.stop - job.start for job in self.jobs) if is_known else None
        if not self.is_finished:
            with outputs.writing(out):
                outputs.write_report(out, {"command": COMMAND, "finished": False, "sources": self._about})
                (out / shards.SHARDS).mkdir(exist_ok=True)
                (out / shards.PARTS).mkdir(exist_ok=True)
        self._start = perf_counter()

    def _require_same(self, report: dict[str, Any]) -> None:
        """Raise UserError if `out` holds another conversion. An unfinished one may get further sources."""
        before, now = (
            {(one["name"], one["path"]): one for one in sources} for sources in (report["sources"], self._about)
        )
        gone, new = before.keys() - now.keys(), now.keys() - before.keys()
        kept = before.keys() & now.keys()
        changed = sorted({key for one in kept for key in now[one] if before[one].get(key) != now[one][key]})
        if changed == ["calibration"]:
            files = ", ".join(sorted({str(source.sensors().file or "none") for source in self.sources}))
            raise UserError(
                f"{self.out} holds a conversion with another calibration than {files} has now: the file was changed, "
                "or is another one; give another --out"
            )
        if changed:
            raise UserError(
                f"{self.out} has a conversion with other settings ({', '.join(changed)}); give another --out"
            )
        if gone or (new and report["finished"]):
            unreadable = "".join(f"; {why}" for why in self.left_out)
            raise UserError(f"{self.out} holds the conversion of other inputs; give another --out{unreadable}")

    def run(self, processes: int | None = None, runner: str = "local") -> Iterator[int]:
        """Do what is missing; yields the number of scans done so far. Raises UserError.

        Args:
            processes: None: one per processor. They read side by side what can be read in parts.
            runner: "local", or "ray": on a Ray cluster. The set is the same.
        """
        count = min(processes or len(os.sched_getaffinity(0)), len(self.jobs))
        converted: Iterable[int] = chain.from_iterable(convert(job, self.out) for job in self.jobs)
        if count > 1 or runner != "local":
            converted = spread(partial(_convert_all, out=self.out.resolve()), self.jobs, count, runner)
        return accumulate(converted)

    def finish(self) -> dict[str, Any]:
        """Put the index together and write the report, which is returned. Raises UserError if there is no scan."""
        if self.is_finished:
            report: dict[str, Any] = json.loads((self.out / REPORT).read_text())
            return report
        parts = [
            json.loads(path.read_text())
            for source in self.sources
            for path in sorted((self.out / shards.PARTS).glob(f"{source.name}-[0-9][0-9][0-9][0-9][0-9].json"))
        ]
        found = {kind: _summed(part[kind] for part in [*self._noted, *parts]) for kind in ("problems", "notes")}
        entries = _with_splits([shards.Entry(**entry) for part in parts for entry in part["entries"]])
        if not entries:
            raise UserError("; ".join(found["problems"]) or "the inputs hold no scans")
        images = _pairing(part["gaps"] for part in parts)
        wanted = (source for source in self.sources if source.with_images)
        if not images and any(source.sensors().calibration.cameras for source in wanted):
            why = "; ".join((*found["problems"], *found["notes"])) or "none is near in time, or of the same name"
            raise UserError(f"no scan has an image of the calibration's cameras: {why}")
        twice = [key for key, count in Counter(entry.key for entry in entries).items() if count > 1]
        if twice:
            raise UserError(f"several scans are called {twice[0]}; rename their files or folders")
        report = {
            "command": COMMAND,
            "finished": True,
            "sources": self._about,
            "scans": len(entries),
            "sequences": Counter(entry.sequence for entry in entries),
            "splits": Counter(entry.split or "left out" for entry in entries),
            "images": images,
            "bytes": sum(entry.size for entry in entries),
            "sha256": shards.sha256("".join(entry.sha256 for entry in entries).encode()),
            "seconds": round(perf_counter() - self._start, 1),  # of the last run
            **found,
        }
        with outputs.writing(self.out):
            for left in (self.out / shards.SHARDS).glob("*.tmp"):  # of a process that was killed
                left.unlink()
            shards.write_index(self.out, entries)
            outputs.write_report(self.out, report)
            rmtree(self.out / shards.PARTS)
        return report


def _convert_all(job: Job, out: Path) -> int:
    """All of a job, on whichever machine. Raises UserError."""
    for path in (Path(job.source.path), out / shards.PARTS):
        if not path.exists():
            raise UserError(f"{path} is not on this machine ({node()}); all need inputs and output at the same paths")
    return sum(convert(job, out))


def _summed(counts: Iterable[Mapping[str, int]]) -> list[str]:
    """Problems of all parts together."""
    problems = Problems()
    for found in counts:
        for text, count in found.items():
            problems.add(text, times=count)
    return list(problems)


def _with_splits(entries: list[shards.Entry]) -> list[shards.Entry]:
    """Scans that come with a split keep it, and so do all others of their sequence."""
    sequences: dict[str, list[int]] = defaultdict(list)
    for place, entry in enumerate(entries):
        sequences[entry.sequence].append(place)
    new = [places for places in sequences.values() if not any(entries[place].split for place in places)]
    splits = split([[entries[place].stamp for place in places] for places in new])
    for places, names in zip(new, splits, strict=True):
        for place, name in zip(places, names, strict=True):
            entries[place] = entries[place]._replace(split=name)
    return entries


def _pairing(parts: Iterable[Mapping[str, Sequence[int | None]]]) -> dict[str, Any]:
    """Images of each camera, and how far in time they are from their scans, from the gaps (ns) of all parts."""
    gaps: dict[str, list[int | None]] = defaultdict(list)
    for part in parts:
        for camera, found in part.items():
            gaps[camera] += found
    report = {}
    for camera, found in gaps.items():
        seconds = np.abs([1e-9 * gap for gap in found if gap is not None])
        apart = {"gap_p50": float(np.median(seconds)), "gap_max": float(seconds.max())} if len(seconds) else {}
        report[camera] = {"paired": len(found)} | apart
    return report
