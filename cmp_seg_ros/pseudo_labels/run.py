"""Pseudo-labels of a whole set in the unified form, stretch by stretch; goes on where an earlier run was broken off."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np

from cmp_seg_ros import outputs
from cmp_seg_ros.datasets import unified
from cmp_seg_ros.datasets.added_labels import BLOCK, LabelWriter, write_labels
from cmp_seg_ros.datasets.frame import Frame, PointLabels
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.mapping.odometry import LONGEST_SWEEP, Motion, odometry_of
from cmp_seg_ros.pseudo_labels import over_time, pictures
from cmp_seg_ros.pseudo_labels.labeller import Evidence, PseudoLabeller
from cmp_seg_ros.pseudo_labels.report import PseudoReport
from cmp_seg_ros.scan import UNLABELLED

PICTURES = 5  # of scans spread over the set


def label_set(
    data: unified.DataSet,
    labeller: PseudoLabeller,
    report: PseudoReport,
    odometry: str = "auto",
    again: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> PseudoReport:
    """Write the pseudo-labels of all scans into labels/SOURCE of the set, with report.json and pictures/.

    Args:
        report: with what is known beforehand; continued from that of a run that was broken off.
        odometry: as for `odometry_of`.
        again: replace labels of that source that were made otherwise.
        progress: called with the number of scans done.

    Raises:
        UserError: no scan could be labelled; the set cannot be written; the source exists and was made otherwise.
    """
    made_by = report.model_dump(mode="json", include={"teacher", "variant", "refinements"})
    writer = write_labels(data.path, report.source, labeller.space, made_by, again)
    report = _continued(report, writer)
    pictured = set(np.linspace(0, len(data) - 1, PICTURES).astype(int).tolist())
    with outputs.writing(writer.folder), writer:
        for stretch in stretches(data, writer):
            for frame, labels in _labelled(stretch, labeller, report, odometry, writer.folder, pictured):
                writer.add(frame.number, labels)
            writer.flush()
            outputs.write_whole(writer.folder / outputs.REPORT, report.to_json())
            progress(len(writer.done))
        if not report.labelled:
            raise UserError(f"no point of {data.path} got a label: {_why_none(report)}")
        report.finished = True
        outputs.write_whole(writer.folder / outputs.REPORT, report.to_json())
    return report


def stretches(data: unified.DataSet, writer: LabelWriter) -> Iterator[list[Frame]]:
    """The frames that are not done: those of one sequence in one block of the writer, which is written as a whole."""
    todo = (frame for frame in data if frame.number not in writer.done)
    for _, block in groupby(todo, lambda frame: frame.number // BLOCK):
        yield list(block)


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
        labels = [labeller.decide(one) for one in evidence]
        if labeller.refinements.time and (motions := _motions(frames, odometry, report)):
            labels = over_time.fused(frames, motions, labels, [one.probabilities for one in evidence], labeller.space)
        for frame, one, found in zip(frames, evidence, labels, strict=True):
            final = labeller.confident(found)
            report.add(frame.scan.valid(), one, final, labeller.space)
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
            report.skip(str(error))
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
        report.problem(f"no agreement over time from {frames[0].key} to {frames[-1].key}: {error}")
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


def _continued(report: PseudoReport, writer: LabelWriter) -> PseudoReport:
    """The counts of an earlier run of the same kind, whose labels are kept."""
    path = writer.folder / outputs.REPORT
    if not writer.done or not path.is_file():
        return report
    try:
        return PseudoReport.model_validate_json(path.read_text()).model_copy(update={"finished": False})
    except ValueError as error:
        raise UserError(f"{path} is damaged; remove {writer.folder} and label again") from error


def _why_none(report: PseudoReport) -> str:
    reasons = [*report.skipped, *report.problems]
    return "; ".join(reasons[:5]) or "no point is seen by a camera, or all are rejected; try --raw"
