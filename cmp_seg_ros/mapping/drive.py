"""The consumer of `cmp-seg map`: fuses the labels of a drive, and writes the map with its report."""

import zlib
from pathlib import Path
from time import perf_counter

import numpy as np

from cmp_seg_ros.datasets.base import DataSet, Problems
from cmp_seg_ros.datasets.frame import TRUTH, Frame
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.pipeline import Consumer, Result
from cmp_seg_ros.evaluation.report import MapReport, Report
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.mapping import files
from cmp_seg_ros.mapping.fusion import VOXEL
from cmp_seg_ros.mapping.gain import FusionScore, Gain
from cmp_seg_ros.mapping.grid import RESOLUTION, Grid, grid_of
from cmp_seg_ros.mapping.odometry import Motion, NoPose, Odometry, odometry_of
from cmp_seg_ros.mapping.semantic_map import SemanticMap
from cmp_seg_ros.memory import peak_mb
from cmp_seg_ros.scan import Labels


class DriveMap(Consumer):
    """Maps the scans of one drive; what has no pose is left out, and a jump of the odometry ends the map.

    Args:
        data: the input, read once more at the end where it has a truth.
        space: of the labels.
        out: folder for the files of the map; None: none are written.
        odometry: name of its source, see `odometry_of`.
        voxel_size: metres.
        resolution: of the grid, metres.
        score: whether to compare single scans and map with the truth, where there is one.

    Attributes:
        map: the map so far.
        motions: by number of the frame.
        result: what the report says of it, once finished.
        score: counts of single scans and map against the truth, once finished; None without a truth.
        grid: the floor plan, once finished.
    """

    replaces: tuple[str, ...] = files.FILES

    def __init__(
        self,
        data: DataSet,
        space: LabelSpace,
        out: Path | None,
        odometry: str = "auto",
        voxel_size: float = VOXEL,
        resolution: float = RESOLUTION,
        score: bool = True,
    ) -> None:
        self.data, self.space, self.out, self.source = data, space, out, odometry
        self.map, self.resolution = SemanticMap(space, voxel_size), resolution
        self.motions: dict[int, Motion] = {}
        self.lost = ""  # why the map ends before the drive does
        self._odometry: Odometry | None = None
        self._sequence = ""
        self._truth = data.label_spaces.get(TRUTH) if score else None
        self.result: MapReport | None = None
        self.score: FusionScore | None = None
        self.grid: Grid | None = None
        self._single: dict[int, bytes] = {}  # compressed labels of scans that have a truth
        self._without_pose = Problems()
        self._seconds = {"odometry": 0.0, "fusion": 0.0}

    def add(self, result: Result, report: Report) -> None:
        frame, labels = result.frame, result.labels
        if self.lost:
            return
        motion = self._locate(frame, report)
        if motion is None or labels is None:
            return
        start = perf_counter()
        self.map.add(frame.scan, labels, motion)
        self._seconds["fusion"] += perf_counter() - start
        self.motions[frame.number] = motion
        if self._truth is not None and TRUTH in frame.labels:
            self._single[frame.number] = zlib.compress(labels.label.tobytes(), 1)

    def _locate(self, frame: Frame, report: Report) -> Motion | None:
        """The motion of the lidar, or None; notes why."""
        if self._odometry is None:
            self._odometry, self._sequence = odometry_of(self.source, frame), frame.sequence
        start = perf_counter()
        try:
            if frame.sequence != self._sequence:
                raise UserError(f"scan {frame.key} is of another drive, {frame.sequence}; map each by itself")
            return self._odometry(frame)
        except NoPose as error:
            self._without_pose.add(str(error), "pose")
        except UserError as error:
            self.lost = str(error)
            report.problems.append(f"the map ends at scan {frame.key}: {error}")
        finally:
            self._seconds["odometry"] += perf_counter() - start
        return None

    def finish(self, report: Report) -> None:
        if not self.motions:
            raise UserError("; ".join([*self._without_pose, *report.problems]) or "no scan was labelled")
        report.warnings += list(self._without_pose)
        found, moves = self.map.every()
        still = self.map.still()
        grid = self.grid = grid_of(still, self.space, self.resolution)
        way = np.array([motion.start[:2, 3] for motion in self.motions.values()]).reshape(-1, 2)
        area = np.bincount(grid.label.ravel(), minlength=256) * grid.resolution**2
        report.map = self.result = MapReport(
            odometry=self._odometry.name if self._odometry else "",
            complete=report.finished and not self.lost,
            scans=len(self.motions),
            metres=float(np.linalg.norm(np.diff(way, axis=0), axis=1).sum()),
            voxel_size=self.map.voxels.voxel_size,
            voxels=len(found),
            moving=int(moves.sum()),
            still=len(still),
            area={c.name: round(float(area[c.id]), 2) for c in self.space.classes},
            seconds={name: round(value, 3) for name, value in self._seconds.items()},
            memory_mb=round(peak_mb()),
            gain=self._gain() if report.finished else None,
        )
        if self.out is not None:
            made = self.result
            title = f"{made.scans:,} scans, {made.metres:.0f} m, {made.odometry} odometry"
            files.write_map(self.out, still, grid, self.space, way, title)
            report.files += self.replaces

    def _gain(self) -> dict[str, Gain] | None:
        """Single scans and map against the truth; reads the data once more."""
        if not self._single or self._truth is None:
            return None
        score = self.score = FusionScore(self._truth, self.space)
        for frame in self.data:
            if frame.number > max(self._single):
                break
            if frame.number not in self._single:
                continue
            label = np.frombuffer(zlib.decompress(self._single[frame.number]), np.uint8)
            single = Labels(label, np.zeros(len(label), np.float32))
            fused = self.map.labels_of(frame.scan, single, self.motions[frame.number])
            score.add(frame.group, frame.scan, frame.labels[TRUTH].label, single, fused)
        return score.gains()
