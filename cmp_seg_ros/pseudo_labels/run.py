"""Pseudo-labels of a whole set in the unified form, stretch by stretch; goes on where an earlier run was broken off."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from platform import node
from typing import NamedTuple

import numpy as np
import yaml

from cmp_seg_ros import outputs
from cmp_seg_ros.datasets import unified
from cmp_seg_ros.datasets.added_labels import BLOCK, LabelWriter, write_labels
from cmp_seg_ros.datasets.frame import Frame, PointLabels
from cmp_seg_ros.datasets.shards import LABELS
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.mapping.odometry import LONGEST_SWEEP, Motion, odometry_of
from cmp_seg_ros.pseudo_labels import over_time, pictures
from cmp_seg_ros.pseudo_labels.labeller import Evidence, PseudoLabeller
from cmp_seg_ros.pseudo_labels.report import PseudoReport
from cmp_seg_ros.pseudo_labels.surfaces import surface_table
from cmp_seg_ros.scan import UNLABELLED
from cmp_seg_ros.teachers.base import open_teacher
from cmp_seg_ros.workers import spread

PICTURES = 5  # of scans spread over the set
COUNTS = "[0-9]*.json"


class Recipe(NamedTuple):
    """What the labels of a block of scans are made by, for another process or machine.

    Args:
        folder: of the unified set.
        report: the run's settings; its counts are of no use.
        space: of the labels.
        odometry: as for `odometry_of`.
    """

    folder: Path
    report: PseudoReport
    space: LabelSpace
    odometry: str


def label_set(
    data: unified.DataSet,
    labeller: PseudoLabeller,
    report: PseudoReport,
    odometry: str = "auto",
    again: bool = False,
    progress: Callable[[int], None] = lambda done: None,
    processes: int = 1,
    runner: str = "local",
) -> PseudoReport:
    """Write the pseudo-labels of all scans into labels/SOURCE of the set, with report.json and pictures/.

    A block of scans is the unit of work: it has a file of labels, and one of counts beside it.

    Args:
        report: with what is known beforehand.
        odometry: as for `odometry_of`.
        again: replace labels of that source that were made otherwise.
        progress: called with the number of scans done.
        processes, runner: as for `workers.spread`. Other processes open the teacher by its name in the report.

    Raises:
        UserError: no scan could be labelled; the set cannot be written; the source exists and was made otherwise.
    """
    made_by = report.model_dump(mode="json", include={"teacher", "variant", "refinements"})
    made_by["surfaces"] = surface_table().key if labeller.refinements.geometry else ""
    writer = write_labels(data.path, report.source, labeller.space, made_by, again)
    done = len(writer.done)
    todo = [first for first in range(0, len(data), BLOCK) if first not in writer.done]
    recipe = Recipe(data.path.resolve(), report, labeller.space, odometry)
    with outputs.writing(writer.folder):
        work: Iterable[int] = (_label_block(first, recipe, data, labeller) for first in todo)
        if processes > 1 or runner != "local":
            work = spread(partial(_label_elsewhere, recipe=recipe), todo, processes, runner)
        for scans in work:
            done += scans
            progress(done)
        for path in sorted(writer.folder.glob(COUNTS)):
            report.join(_read(path))
        if not report.labelled:
            why = "; ".join([*report.skipped, *report.problems][:5])
            why = why or "no point is seen by a camera, or all are rejected; try --raw"
            raise UserError(f"no point of {data.path} got a label: {why}")
        report.finished = True
        outputs.write_whole(writer.folder / outputs.REPORT, report.to_json())
    return report


def _label_elsewhere(first: int, recipe: Recipe) -> int:
    """`_label_block` in another process, which opens set and teacher once. Raises UserError."""
    if not (recipe.folder / LABELS / recipe.report.source).is_dir():
        raise UserError(f"{recipe.folder} is not on this machine ({node()}); all need the set at the same path")
    data, labeller = _opened(recipe.folder, recipe.report.model_dump_json(), recipe.space.to_yaml())
    return _label_block(first, recipe, data, labeller)


@lru_cache(maxsize=1)
def _opened(folder: Path, settings: str, space: str) -> tuple[unified.DataSet, PseudoLabeller]:
    report = PseudoReport.model_validate_json(settings)
    variant = "" if report.variant == "hand" else report.variant
    label_space = LabelSpace.model_validate(yaml.safe_load(space))
    labeller = PseudoLabeller(open_teacher(report.teacher), label_space, variant, report.refinements)
    return unified.DataSet(folder), labeller


def _label_block(first: int, recipe: Recipe, data: unified.DataSet, labeller: PseudoLabeller) -> int:
    """Write the counts of a block, then its labels; returns its number of scans. Raises UserError, OSError."""
    report = recipe.report.model_copy(deep=True)
    frames = [data[number] for number in range(first, min(first + BLOCK, len(data)))]
    pictured = set(np.linspace(0, len(data) - 1, PICTURES).astype(int).tolist())
    folder = recipe.folder / LABELS / report.source
    writer = LabelWriter(folder, [entry.key for entry in data.entries], recipe.space)
    for frame, labels in _labelled(frames, labeller, report, recipe.odometry, folder, pictured):
        writer.add(frame.number, labels)
    outputs.write_whole(folder / f"{first:06d}.json", report.to_json())
    writer.flush(first)
    return len(frames)


def _read(path: Path) -> PseudoReport:
    try:
        return PseudoReport.model_validate_json(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged; remove {path.parent} and label again") from error


def _labelled(
    block: Sequence[Frame],
    labeller: PseudoLabeller,
    report: PseudoReport,
    odometry: str,
    folder: Path,
    pictured: Collection[int],
) -> Iterator[tuple[Frame, PointLabels]]:
    """The frames of a block that get labels, with these; draws those whose number is in `pictured`."""
    for _, sequence in groupby(block, lambda frame: frame.sequence):
        frames, evidence = _looked_at(list(sequence), labeller, report, pictured)
        decided = voted = [labeller.decide(one) for one in evidence]
        if labeller.refinements.time and (motions := _motions(frames, odometry, report)):
            voted = over_time.fused(frames, motions, decided, [one.probabilities for one in evidence], labeller.space)
        sure = [labeller.confident(one) for one in voted]
        stages = zip(decided, voted, sure, labeller.balanced(sure), strict=True)
        for frame, one, labels in zip(frames, evidence, stages, strict=True):
            report.add(frame.scan.valid(), one, labels, labeller.space)
            final = labels[-1]
            if one.views:
                _draw(folder, frame, one, final, labeller, report)
            yield frame, final


def _looked_at(
    frames: Sequence[Frame], labeller: PseudoLabeller, report: PseudoReport, pictured: Collection[int]
) -> tuple[list[Frame], list[Evidence]]:
    """The frames whose images can be used, and what they show; images are kept of those that are to be drawn."""
    used, evidence = [], []
    for frame in frames:
        try:
            one = labeller.look(frame)
        except UserError as error:
            report.skipped[str(error)] += 1
            continue
        used.append(frame)
        evidence.append(one if frame.number in pictured else replace(one, views={}))
    return used, evidence


def _motions(frames: Sequence[Frame], odometry: str, report: PseudoReport) -> list[Motion]:
    """The lidar's motion during each frame; none where the frames do not follow each other, or it cannot be known."""
    stamps = np.array([frame.scan.stamp for frame in frames])
    follow = (np.diff(stamps) > 0).all() and (np.diff(stamps) < LONGEST_SWEEP * 1e9).all()
    if len(frames) < 2 or (frames[0].T_world_lidar is None and not follow):
        return []
    try:
        source = odometry_of(odometry, frames[0])
        return [source(frame) for frame in frames]
    except UserError as error:
        report.problems.append(f"no agreement over time from {frames[0].key} to {frames[-1].key}: {error}")
        return []


def _draw(
    folder: Path, frame: Frame, evidence: Evidence, labels: PointLabels, labeller: PseudoLabeller, report: PseudoReport
) -> None:
    name = f"pictures/{frame.number:06d}.png"
    seen = max(1, int(evidence.seen.sum()))
    labelled = int((evidence.seen & (labels.label != UNLABELLED)).sum())
    title = f"Pseudo-labels of {frame.key}: {labelled:,} of {seen:,} seen points labelled ({labelled / seen:.0%})"
    pictures.draw(folder / name, frame, evidence, labels, labeller, title)
    report.files.append(name)
