"""The report.json of commands that label: typed, versioned, described by docs/report.schema.json.

    python -m cmp_seg_ros.evaluation.report > docs/report.schema.json

Fractions are 0..1; times are in milliseconds if so named, else in seconds; lengths in metres; None: no value.
"""

import json
import os
import platform
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.evaluation.accuracy import Accuracy
from cmp_seg_ros.evaluation.bootstrap import Interval
from cmp_seg_ros.evaluation.consistency import TemporalConsistency
from cmp_seg_ros.speed.clock import processor

Percentiles = dict[str, float]  # p50, p95, p99
# The sections that differ between two runs on the same input with the same model and engine.
TIMINGS = (
    *("machine", "latency_ms", "stages_ms", "latency_by_frame_ms"),
    *("rate_hz", "scans", "scans_by_voxel_size", "memory_mb"),
)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class Machine(_Part):
    """What the figures were measured on."""

    processor: str = Field(default_factory=processor)
    cores: int = Field(default_factory=lambda: len(os.sched_getaffinity(0)))
    python: str = Field(default_factory=platform.python_version)


class Hashes(_Part):
    """SHA-256 over the labelled frames, in their order: reports with the same `scans` were measured on the same data.

    scans: points, intensities, and the labels that they came with. labels: what the labeller answered.
    """

    scans: str
    labels: str


class Frames(_Part):
    """Frames by what became of them: read = labelled + skipped."""

    read: int = 0
    labelled: int = 0
    skipped: dict[str, int] = {}  # by reason
    without_labels: list[str] = []  # keys of labelled frames of which no point got a label
    hashes: Hashes | None = None


class PlaneScore(_Part):
    """Labels of the points on the floor or the ceiling, and of the points that are labelled so."""

    recall: float | None
    precision: float | None
    points: float


class WallScore(_Part):
    recall: float | None
    planes: float


class PlaneScores(_Part):
    """How labels fit the planes of a scan, or the medians over scans."""

    floor: PlaneScore
    ceiling: PlaneScore
    wall: WallScore


class ScanPlanes(PlaneScores):
    """The plane check of one scan; tilt in degrees against z, way_up below 0 for what looks upside down."""

    key: str
    tilt: float
    way_up: float
    perfect: PlaneScores | None = None  # of a labeller that knows the truth


class PlaneReport(_Part):
    scans: list[ScanPlanes]
    median: PlaneScores
    perfect_median: PlaneScores | None = None


class Extreme(_Part):
    """The scan with the lowest or the highest score, pictured."""

    key: str
    miou: float


class LiveScans(_Part):
    """Scans of a live run: in = out + dropped."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    played: int
    in_: int = Field(alias="in")
    out: int
    dropped: int
    received: int
    dropped_by_reason: dict[str, int]


class Gain(_Part):
    """mIoU of single scans and of the map, on the same points; `interval` is of the difference, by stretches."""

    single: float | None
    fused: float | None
    difference: float | None
    interval: Interval | None
    iou_single: dict[str, float | None]
    iou_fused: dict[str, float | None]


class MapReport(_Part):
    """The map of a drive: voxels = still + moving + those of a single scan."""

    odometry: str
    complete: bool  # false if the odometry jumped: the map ends there
    scans: int
    metres: float  # way of the lidar
    voxel_size: float
    voxels: int
    moving: int
    still: int
    area: dict[str, float]  # square metres of the floor plan by class
    seconds: dict[str, float]
    memory_mb: float  # the most that was resident
    gain: dict[str, Gain] | None = None  # by reading


class Report(_Part):
    """All of a run; sections that a command does not have are None."""

    version: Literal[2] = 2  # reports without one are older
    command: str  # of cmp-seg
    finished: bool = False

    # What ran
    input: str | None = None
    topic: str | None = None
    calibration: str | None = None
    model: str = ""
    bundle: str = ""  # hash of what decides its labels
    engine: str = ""
    label_space: str = ""
    voxel_size: float = 0.0  # median over scans
    machine: Machine = Field(default_factory=Machine)

    # Frames
    frames: Frames = Field(default_factory=Frames)
    points: int = 0
    points_per_scan: float = 0.0  # medians
    voxels_per_scan: float = 0.0
    share: dict[str, float] = {}  # of each class in the labelled points
    unlabelled: float = 0.0  # share of all points
    unlikeness: float | None = None  # to the scans of the training, where the bundle estimates it; median
    strange_intensity: float | None = None  # share of scans labelled without their intensities, which are strange
    latency_ms: Percentiles = {}
    stages_ms: dict[str, Percentiles] = {}
    latency_by_frame_ms: list[float] = []

    # Against the truth: structural4 primary where labels and truth have it, else the truth's own space
    miou: float | None = None
    iou: dict[str, float | None] = {}
    source: str | None = None  # of the truth: `truth` of a simulation, `hand`, `pseudo`, ...
    accuracy: Accuracy | None = None
    other_sources: dict[str, Accuracy] = {}  # against further sources, by name
    worst: Extreme | None = None
    best: Extreme | None = None

    # Without a truth
    consistency: TemporalConsistency | None = None
    planes: PlaneReport | None = None
    map: MapReport | None = None

    # A live run
    seed: int | None = None
    sensor: str | None = None
    seconds: float | None = None
    played_at: float | None = None
    rate_hz: float | None = None
    scans: LiveScans | None = None
    scans_by_voxel_size: dict[str, int] = {}
    memory_mb: dict[str, float] = {}

    warnings: list[str] = []
    problems: list[str] = []
    files: list[str] = []  # written, beside the report

    @classmethod
    def of(cls, command: str, data: DataSet) -> "Report":
        """The report that a command begins with."""
        calibration = data.sensors.file
        return cls(
            command=command,
            input=str(data.path),
            topic=data.topic or None,
            calibration=None if calibration is None else str(calibration),
        )

    def to_json(self) -> dict[str, Any]:
        """As report.json has it, without the sections that a command does not have."""
        content = self.model_dump(mode="json", by_alias=True)
        kept = ("input", "topic", "calibration", "miou")
        return {name: value for name, value in content.items() if value is not None or name in kept}


def schema() -> str:
    """The JSON schema of report.json."""
    return json.dumps(Report.model_json_schema(by_alias=True, mode="serialization"), indent=1) + "\n"


if __name__ == "__main__":
    print(schema(), end="")
