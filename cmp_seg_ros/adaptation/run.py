"""The steps of `cmp-seg adapt`. Each leaves its result in the output folder, and is passed over when that is there."""

import json
import shutil
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cmp_seg_ros import label_space, outputs, resources
from cmp_seg_ros.adaptation import pictures
from cmp_seg_ros.adaptation.holding import HeldBack, Stretches, hold_back, sets_of
from cmp_seg_ros.adaptation.verdict import Difference, Verdict, figure, judge, plane_differences
from cmp_seg_ros.bundle import DEFAULT_BUNDLE, Bundle
from cmp_seg_ros.datasets.conversion import Conversion, sources_of
from cmp_seg_ros.datasets.frame import PSEUDO
from cmp_seg_ros.datasets.unified import DataSet as UnifiedSet
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.compare import Comparison, Loaded, compare
from cmp_seg_ros.evaluation.metrics import PRIMARY
from cmp_seg_ros.evaluation.page import HTML, Notes, Page, Picture, Row, Section, Table, facts, percent
from cmp_seg_ros.evaluation.pipeline import Consumer, Model, Result, run
from cmp_seg_ros.evaluation.plane_check import PlaneCheck
from cmp_seg_ros.evaluation.report import Report
from cmp_seg_ros.evaluation.scoring import Scores
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, UInt8
from cmp_seg_ros.training import tasks
from cmp_seg_ros.training.average import average
from cmp_seg_ros.training.config import TrainConfig

SETTINGS = "settings.json"
DATA, TRAINING, BUNDLE, CALIBRATION = "data", "training", "bundle", "calibration-check.json"
VARIANT = "pseudo"  # of the mapping from the teacher's classes
SUITE = "forgetting"
OLD, NEW = "shipped", "new"
PICTURED = 3  # scans
CHECKED = 12  # scans that the calibration is checked with
COMMAND = "adapt"

FOUR = "primary: four classes, without flush"
TEACHER = "The teacher is no truth: it errs too, most at borders and on thin things. Higher is mostly better."
PLANES = "Floor, ceiling and walls found by geometry alone, in which neither teacher nor bundle had a say."
CHANGED = "The teacher, the shipped bundle and the new one, on a held-back scan"
CURVES = "Loss, and scores against the teacher on held-back scans"

Progress = Callable[[str, int | None], Any]  # (what, total) -> context manager of a function of the number done


class Settings(BaseModel):
    """What an adaptation is made of; fixed when it is resumed, but for hours, buildings and average."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recordings: list[str]
    calibration: str | None = None
    topic: str = ""
    teacher: str = "mosaic"
    start: str = DEFAULT_BUNDLE
    recipe: str = "adapt"
    hours: float = Field(default=1.0, gt=0)
    held_back: float = Field(default=0.2, gt=0, lt=1)
    average: bool = True
    buildings: int | None = None  # of the suite; None: all


class Labelled(NamedTuple):
    """Share of each class in the pseudo-labels that are learnt from, and of the points that have one."""

    shares: dict[str, float]
    covered: float


class Adaptation:
    """An adaptation in the folder `out`.

    Raises:
        UserError: `out` holds something else, or another adaptation; the start has other classes than it may.
    """

    def __init__(self, settings: Settings, out: Path) -> None:
        self.settings, self.out = settings, out
        self._labels: dict[str, dict[str, UInt8]] = {}  # of the evaluations, by bundle and key
        outputs.require_writable(out, COMMAND, (outputs.REPORT, SETTINGS, DATA, TRAINING, BUNDLE, HTML))
        self.start = Bundle.find(settings.start)
        self.space = _with_mappings(self.start.description.label_space)
        known, free = self._read(SETTINGS), settings.model_dump(include={"hours", "buildings", "average"})
        before = settings if known is None else Settings(**known).model_copy(update=free)
        if other := [name for name, value in before if value != getattr(settings, name)]:
            raise UserError(f"{out} holds another adaptation, with another {', '.join(other)}; give another --out")

    def begin(self) -> None:
        """Take the output folder. Raises OSError."""
        self.out.mkdir(parents=True, exist_ok=True)
        outputs.write_report(self.out, {"command": COMMAND, "finished": False})
        self._write(SETTINGS, self.settings.model_dump())

    # Data

    def convert(self, progress: Progress) -> list[str]:
        """All recordings into one unified set; returns what is odd about them.

        Raises:
            UserError: a recording has no images of a calibrated camera, or cannot be read.
        """
        settings = self.settings
        calibration = None if settings.calibration is None else Path(settings.calibration)
        sources = sources_of([Path(path) for path in settings.recordings], settings.topic, calibration)
        for source in sources:  # before hours of work
            frame = next(iter(source.open()), None)
            if frame is not None and all(image.camera is None for image in frame.images.values()):
                known = ", ".join(frame.images) or "none"
                raise UserError(
                    f"{source.path} has no image of a calibrated camera (its cameras: {known}); a camera teaches the "
                    "lidar: give intrinsics and T_camera_lidar with --calibration"
                )
        conversion = Conversion(sources, self.out / DATA)
        with progress("converting", conversion.total) as update:
            for done in conversion.run():
                update(done)
        report = conversion.finish()
        return [*report["problems"], *report["notes"]]

    def check(self, progress: Progress, force: bool = False) -> list[str]:
        """Whether scans and images lie on each other as the calibration says: a sentence for each camera.

        Raises:
            UserError: they clearly do not, and not `force`; or there are too few images to tell.
        """
        from cmp_seg_ros.evaluation import calibration_check

        kept = self._read(CALIBRATION)
        if kept is None:
            with progress("calibration", None):
                found = calibration_check.check(self.out / DATA, SensorSet(), frames=CHECKED)
            kept = {name: one.summary() | {"off": one.degrees, "away": one.centimetres} for name, one in found.items()}
            self._write(CALIBRATION, kept)
        wrong = any(calibration_check.is_off(one["off"], one["away"], one["between_halves"]) for one in kept.values())
        said = [f"camera {name}: {one['verdict']}" for name, one in kept.items()]
        if wrong and not force:
            raise UserError(
                f"{'; '.join(said)}: pseudo-labels would be wrong at all edges; `cmp-seg calibration check --refine "
                f"{self.out / DATA}` writes a better one: give it as --calibration, with another --out; --force goes "
                "on with this one"
            )
        return said

    @cached_property
    def data(self) -> UnifiedSet:
        return UnifiedSet(self.out / DATA)

    @cached_property
    def stretches(self) -> Stretches:
        """What is learnt from and what is held back.

        Raises:
            UserError: the recordings are too short; then nothing is kept of them, so that longer ones may follow.
        """
        try:
            return hold_back(self.data, self.settings.held_back)
        except UserError:
            shutil.rmtree(self.out / DATA)
            (self.out / SETTINGS).unlink()
            raise

    def label(self, progress: Progress) -> Labelled:
        """Pseudo-labels of all scans that a camera sees. Raises UserError."""
        from cmp_seg_ros.pseudo_labels.labeller import PseudoLabeller, Refinements
        from cmp_seg_ros.pseudo_labels.report import PseudoReport
        from cmp_seg_ros.pseudo_labels.run import label_set
        from cmp_seg_ros.teachers.base import open_teacher

        teacher, refinements = self.settings.teacher, Refinements()
        labeller = PseudoLabeller(open_teacher(teacher), self.space, VARIANT, refinements)
        report = PseudoReport(
            input=str(self.out / DATA),
            teacher=teacher,
            label_space=self.space.name,
            variant=VARIANT,
            refinements=refinements,
            source=PSEUDO,
        )
        with progress("teacher on images", len(self.data)) as update:
            label_set(self.data, labeller, report, progress=update)
        del self.data  # opened again, with the new source
        return self._labelled()

    def _labelled(self) -> Labelled:
        count, points = np.zeros(256, np.int64), 0
        for source in sets_of(self.out / DATA, PSEUDO, self.stretches.learnt):
            for frame in source.frames():
                if PSEUDO in frame.labels:
                    found = frame.labels[PSEUDO]
                    count += np.bincount(self.space.id_map(found.space)[found.label], minlength=256)
                    points += int(frame.scan.valid().sum())
        known = int(count[:UNLABELLED].sum())
        if not known:
            raise UserError(
                f"teacher {self.settings.teacher} gave no point of these recordings a label; look at the calibration "
                "(`cmp-seg calibration check`) and at the images"
            )
        shares = {c.name: int(count[c.id]) / known for c in self.space.classes}
        return Labelled(shares, known / max(1, points))

    # Training

    def training(self) -> TrainConfig:
        """The configuration of the fine-tuning."""
        folder = self.out / DATA
        config: TrainConfig = tasks.load_config(
            self.settings.recipe,
            start=str(self.start.path),
            sets=sets_of(folder, PSEUDO, self.stretches.learnt),
            validation=sets_of(folder, PSEUDO, self.stretches.held_back),
            hours=self.settings.hours,
        )
        return config

    @property
    def is_trained(self) -> bool:
        """Whether the training has come to its end, by its steps or by these hours."""
        report = self._read(f"{TRAINING}/{outputs.REPORT}") or {}
        steps, hours = self.training().steps, self.settings.hours
        return bool(report.get("steps", 0) >= steps or report.get("hours", 0) >= hours)

    def export(self) -> Bundle:
        """The trained bundle, or the mean of its weights and the start's, under a name of its own.

        Raises:
            UserError: it cannot be read; it has another network than the start, so that there is no mean.
        """
        trained = Bundle(self.out / TRAINING / BUNDLE)
        if self.settings.average:
            trained = average([self.start, trained], self.out / BUNDLE)
        about = trained.description.model_dump(exclude={"weights_sha256"})
        about["name"] = f"{self.start.description.name}-adapted"
        return Bundle.write(self.out / BUNDLE, trained.weights_path.read_bytes(), **about)

    # Evaluation

    def evaluate(self, which: str, bundle: Bundle, progress: Progress) -> Report:
        """A bundle on what was held back: against the teacher, and against the planes of the scans."""
        data, folder = HeldBack(self.data, self.stretches.held_back), self.out / "evaluation" / which
        labeller = Model(bundle.path)
        kept = Kept()
        consumers: list[Consumer] = [
            Scores(self.data.label_spaces[PSEUDO], labeller.label_space, source=PSEUDO),
            PlaneCheck(labeller.label_space, data.path, data.sensors.file),
            kept,
        ]
        report = Report.of("evaluate", data)
        with progress(f"{which} bundle on held-back scans", data.count) as update:
            run(data, labeller, consumers, report, folder, needs=(PSEUDO,), progress=update)
        if report.accuracy is None:
            raise UserError("no held-back scan has labels of the teacher")
        self._labels[which] = kept.label
        return report

    def remember(self, which: str, bundle: Bundle, progress: Progress) -> None:
        """A bundle on a few simulated buildings."""
        from cmp_seg_ros.evaluation.suites.run import SuiteRun
        from cmp_seg_ros.evaluation.suites.scores import compile_report
        from cmp_seg_ros.evaluation.suites.suite import Suite

        folder = self.out / "simulated"
        suite = SuiteRun(Suite.load(SUITE), bundle.path, buildings=self.settings.buildings, out=folder)
        with progress(f"{which} bundle on simulated buildings", suite.count) as update:
            parts = suite.run(update)
        (folder / which).mkdir(parents=True, exist_ok=True)
        outputs.write_report(folder / which, compile_report(suite, parts, {}))

    # Verdict

    def conclude(self, labelled: Labelled, reports: dict[str, Report], checked: list[str]) -> Verdict:
        """Compare, draw, and write the page and the report."""
        teacher = self._comparison("evaluation")
        simulated = self._comparison("simulated")
        images = sum(last - first + 1 for first, last in self.stretches.held_back)
        headline, of_classes = next(iter(self._readings.items()))
        planes = plane_differences(reports[OLD].planes, reports[NEW].planes)
        against = figure(teacher, headline, "overall accuracy")._replace(name=f"agreement of points ({of_classes})")
        classes = figure(teacher, self.space.name, "mIoU")._replace(name=f"mIoU ({self._readings[self.space.name]})")
        by_class = [figure(teacher, self.space.name, f"IoU {name}")._replace(name=name) for name in self.space.names]
        forgotten = figure(simulated, "primary mIoU", "mean")._replace(name=f"mIoU ({FOUR})")
        verdict = judge(images, against, classes, by_class, forgotten, planes, labelled.shares)
        rows = self._rows(teacher)
        self._page(verdict, labelled, rows, planes, simulated, checked).write(self.out)
        outputs.write_report(
            self.out,
            {
                "command": COMMAND,
                "finished": True,
                "advice": verdict.advice,
                "reasons": verdict.reasons,
                "bundle": str(self.out / BUNDLE),
                "held_back": images,
                "covered": labelled.covered,
                "shares": labelled.shares,
                "teacher": [row._asdict() for row in rows],
                "planes": [row._asdict() for row in planes],
                "simulated": forgotten._asdict(),
                "calibration": checked,
            },
        )
        return verdict

    def _comparison(self, folder: str) -> Comparison:
        return compare(Loaded(self.out / folder / OLD), Loaded(self.out / folder / NEW))

    @property
    def _readings(self) -> dict[str, str]:
        """The readings of the labels, the one that decides by points first, and which classes they have."""
        every = {self.space.name: f"all {len(self.space.names)} classes"}
        return {PRIMARY: FOUR, **every} if self.space.name == "structural6" else every

    def _rows(self, teacher: Comparison) -> list[Difference]:
        """Figures against the teacher: of both readings, then of each class."""
        figures = {"mIoU": "mIoU", "overall accuracy": "agreement of points"}
        rows = [
            figure(teacher, reading, name)._replace(name=f"{said} ({of_classes})")
            for reading, of_classes in self._readings.items()
            for name, said in figures.items()
        ]
        rows += [figure(teacher, self.space.name, f"IoU {name}") for name in self.space.names]
        rows.append(figure(teacher, "calibration", "ECE")._replace(name="calibration error of confidences (ECE)"))
        rows.append(figure(teacher, "temporal", "agreement")._replace(name="agreement over time"))
        return [row for row in rows if row.old is not None]

    def _draw(self) -> list[Path]:
        """Pictures of the scans that changed most."""
        changed = []
        for frame in HeldBack(self.data, self.stretches.held_back):
            if frame.key in self._labels[OLD] and PSEUDO in frame.labels:
                found = frame.labels[PSEUDO]
                told = self.space.id_map(found.space)[found.label]
                old, new = (self._labels[which][frame.key] for which in (OLD, NEW))
                changed.append(pictures.Changed(frame, told, old, new))
        changed = sorted(changed, key=lambda one: -one.share)[:PICTURED]
        drawn = {self.out / f"changed-{number}.png": one for number, one in enumerate(changed)}
        for path, one in drawn.items():
            pictures.draw(path, one, self.space)
        return list(drawn)

    def _page(
        self,
        verdict: Verdict,
        labelled: Labelled,
        rows: list[Difference],
        planes: list[Difference],
        simulated: Comparison,
        checked: list[str],
    ) -> Page:
        settings = self.settings
        forgotten = [
            Difference(f"mIoU ({FOUR}), {one.name}", one.a, one.b, one.interval)
            for section in simulated.sections
            for one in section.figures
            if section.title.startswith("primary mIoU")
        ]
        shares = sorted(labelled.shares.items(), key=lambda item: -item[1])
        covered = f"{labelled.covered:.0%} of the points that were learnt from had a label of the teacher."
        curves = self.out / TRAINING / "curves.png"
        done = [
            ("recordings", ", ".join(settings.recordings)),
            ("teacher", settings.teacher),
            ("training, hours", settings.hours),
            ("shipped bundle", f"{self.start.description.name} ({self.start.hash})"),
            ("new bundle", self.out / BUNDLE),
            ("calibration", "; ".join(checked)),
        ]
        taught = Table(["class", "share"], [[name, percent(share, bar=True)] for name, share in shares])
        sections = [
            Section("What was done", [facts(done)]),
            Section("Against the teacher, on held-back images", [TEACHER, _table(rows)]),
            Section("Planes of the held-back scans", [PLANES, _table(planes)]),
            Section("Simulated buildings: what was forgotten", [_table(forgotten)]),
            Section("What the teacher taught", [covered, taught]),
            Section("Scans that changed most", [Picture(path, CHANGED) for path in self._draw()]),
            Section("Training", [Picture(curves, CURVES)] if curves.is_file() else []),
        ]
        notes = [Notes(verdict.reasons, serious=verdict.advice == "keep")]
        return Page(f"Adaptation: {verdict.title.lower()}", sections, notes=notes)

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.out / name
        return json.loads(path.read_text()) if path.is_file() else None

    def _write(self, name: str, content: dict[str, Any]) -> None:
        outputs.write_whole(self.out / name, (json.dumps(content, indent=2) + "\n").encode())


def _table(rows: Iterable[Difference]) -> Table:
    """Scores of both bundles in per cent, and their difference in points."""
    lines: list[Row] = []
    for row in rows:
        change = "" if row.old is None or row.new is None else f"{100 * row.change:+.1f}"
        interval = "" if row.interval is None else f"{100 * row.interval[0]:+.1f} to {100 * row.interval[1]:+.1f}"
        lines.append([row.name, percent(row.old), percent(row.new), change, interval])
    return Table(["", "shipped", "new", "difference", "95 % interval"], lines)


def _with_mappings(space: LabelSpace) -> LabelSpace:
    """The label space of config/ where it has these classes: it maps from teachers that came after the bundle."""
    if space.name not in resources.names(label_space.FOLDER, ".yaml"):
        return space
    found = LabelSpace.load(space.name)
    same = [(c.name, c.id) for c in found.classes] == [(c.name, c.id) for c in space.classes]
    return found if same else space


class Kept(Consumer):
    """Keeps the (N,) labels of each frame by its key."""

    def __init__(self) -> None:
        self.label: dict[str, UInt8] = {}

    def add(self, result: Result, report: Report) -> None:
        if result.labels is not None:
            self.label[result.frame.key] = result.labels.label
