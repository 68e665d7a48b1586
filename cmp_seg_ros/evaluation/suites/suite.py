"""A benchmark suite: which simulated scans a bundle is measured on and what it must reach; a file in config/suites/."""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cmp_seg_ros import configuration
from cmp_seg_ros.datasets import boxes
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.bootstrap import Bootstrap
from cmp_seg_ros.evaluation.suites.recordings import Recording
from cmp_seg_ros.evaluation.suites.responses import RESPONSES
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.simulation.generate import Transform, rotation
from cmp_seg_ros.simulation.lidar import sensor_names

FOLDER = "config/suites"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Buildings(_Strict):
    """Seeds of buildings: `first` and those after it."""

    first: int = Field(ge=0)
    count: int = Field(gt=0)


class Mount(_Strict):
    """How the lidar is mounted: degrees about the base's fixed axes x, y, z, in this order."""

    roll: float = 0.0
    pitch: float = 0.0
    yaw: float = 0.0

    @property
    def T_base_lidar(self) -> Transform:
        return rotation(*np.radians([self.roll, self.pitch, self.yaw]).tolist())


class Row(_Strict):
    """One way in which scans are taken and shown to the network.

    Args:
        mount: of the lidar, known to the segmenter as by a calibration; None takes the generator's own mix.
        scene: name of a furnished scene instead of generated buildings.
        boxes: kind of box rooms (datasets/boxes.py) instead of generated buildings.
        intensity: whether the network sees it.
        response: how intensities are changed, a name in `responses`; empty leaves them as they are.
        statistics: mean and deviation of intensity that the calibration gives; None learns them from the scan.
        sensors: those of the suite that the row is taken with; empty takes the suite's `sensors`.
        against: the row at the same places that this one is compared with.
    """

    mount: Mount | None = None
    scene: str = ""
    boxes: str = ""
    intensity: bool = True
    response: str = ""
    statistics: tuple[float, float] | None = None
    sensors: list[str] = []
    against: str = ""

    @property
    def places(self) -> str:
        """Rows of the same places are taken at the same places and moments, and differ in mount and intensity."""
        source = self.scene or (f"boxes-{self.boxes}" if self.boxes else "buildings")
        return f"{source}-{'mounts' if self.mount else 'mix'}"

    @model_validator(mode="after")
    def _known(self) -> "Row":
        if self.boxes and (self.scene or self.mount):
            raise ValueError("box rooms have neither a scene nor a mount; leave those out")
        if self.boxes and self.boxes not in boxes.KINDS:
            raise ValueError(f"no box rooms '{self.boxes}'; known: {', '.join(boxes.KINDS)}")
        if self.response and self.response not in RESPONSES:
            raise ValueError(f"no response '{self.response}'; known: {', '.join(RESPONSES)}")
        return self


class Must(_Strict):
    """Limits, fractions 0..1: of the primary mIoU and of every class's IoU in that reading, both for each sensor; of
    the mean over sensors; of how far that may fall below the row that this one is compared with; and, at most, of the
    points that are no person and are called so, and of the expected calibration error, for each sensor."""

    primary: float | None = Field(default=None, ge=0, le=1)
    mean: float | None = Field(default=None, ge=0, le=1)
    false_person: float | None = Field(default=None, ge=0, le=1)
    ece: float | None = Field(default=None, ge=0, le=1)
    each_class: float | None = Field(default=None, alias="class", ge=0, le=1)
    drop: float | None = Field(default=None, ge=0, le=1)


class Suite(_Strict):
    """A benchmark suite: its scans, rows and musts."""

    name: str
    description: str = ""
    truth: str = "structural6"
    buildings: Buildings
    scans: int = Field(default=2, gt=0)  # of a building with one sensor
    sensors: list[str] = Field(min_length=1)
    rows: dict[str, Row] = Field(min_length=1)
    recordings: dict[str, Recording] = {}  # rows on real scans
    range_bins: list[float] = [0.0]  # lower edges, metres; the last bin is open
    bootstrap: Bootstrap = Bootstrap()
    musts: dict[str, Must] = {}

    @classmethod
    def load(cls, name_or_path: str | Path) -> "Suite":
        """Read a benchmark suite by its path, or by its name in config/suites/. Raises UserError."""
        return configuration.load(cls, FOLDER, "benchmark suite", name_or_path)

    def sensors_of(self, row: Row) -> list[str]:
        """Names of the lidars that a row is taken with."""
        return row.sensors or self.sensors

    @field_validator("rows", mode="before")
    @classmethod
    def _empty_rows(cls, rows: Any) -> Any:
        return {name: {} if row is None else row for name, row in rows.items()} if isinstance(rows, dict) else rows

    @model_validator(mode="after")
    def _consistent(self) -> "Suite":
        for row in self.rows.values():
            known = list(boxes.RINGS) if row.boxes else sensor_names()
            if unknown := sorted(set(self.sensors_of(row)) - set(known)):
                raise ValueError(f"no sensor {', '.join(unknown)}; known: {', '.join(known)}")
        if len(set(self.sensors)) < len(self.sensors):
            raise ValueError("a sensor is named twice")
        try:
            LabelSpace.load(self.truth).id_map(LabelSpace.load("indoor"))
        except UserError as error:
            raise ValueError(f"truth: {error}") from error
        edges = self.range_bins
        if edges[:1] != [0] or edges != sorted(set(edges)):
            raise ValueError(f"range_bins must rise from 0, not {edges}")
        for name, row in self.rows.items():
            if not row.against:
                continue
            if row.against in self.rows and set(self.sensors_of(row)) - set(self.sensors_of(self.rows[row.against])):
                raise ValueError(f"row {name} is compared with {row.against}, which is not taken with all its sensors")
            if row.against not in self.rows:
                raise ValueError(f"row {name} is compared with '{row.against}', which is no row")
            if self.rows[row.against].against:
                raise ValueError(f"row {name} is compared with {row.against}, which is itself compared with another")
            if self.rows[row.against].places != row.places:
                raise ValueError(f"row {name} is compared with {row.against}, which is taken at other places")
        if both := sorted(set(self.rows) & set(self.recordings)):
            raise ValueError(f"{', '.join(both)}: names of both a row and a recording")
        for name, must in self.musts.items():
            if name not in self.rows:
                raise ValueError(f"musts are for rows; '{name}' is none of {', '.join(self.rows)}")
            if must.drop is not None and not self.rows[name].against:
                raise ValueError(f"musts of {name}: a drop needs a row to fall from; give the row `against`")
        return self
