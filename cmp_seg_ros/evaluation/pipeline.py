"""Labels the frames of a data set and writes one report; each command adds its own consumers of the results.

report = run(open_input("drive"), Model("waffleiron24-128"), [Scores(...), Pictures(out)])
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cmp_seg_ros import interrupts, outputs
from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.datasets.frame import PREDICTIONS, TRUTH, Frame
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.report import Report
from cmp_seg_ros.evaluation.tally import Tally
from cmp_seg_ros.intensity import IntensityScale
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import Float32, Labels
from cmp_seg_ros.segmenter import Segmenter
from cmp_seg_ros.workers import process_map

R = TypeVar("R")


class Labeller(Protocol):
    """Returns the labels of a frame.

    name: of the model, for a report. label_space: of the labels. segmenter: the one that it uses, if any.
    """

    @property
    def label_space(self) -> LabelSpace: ...

    @property
    def segmenter(self) -> Segmenter | None: ...

    def __call__(self, frame: Frame) -> Labels:
        """Label a frame. Raises UserError if it cannot be labelled."""
        ...


class Model:
    """The `Segmenter` of a bundle, set up for each frame's lidar; created on first use, in each process.

    Intensity statistics are those of the frame, or else learnt from the first scans of each sequence.

    Args: those of `Segmenter.from_bundle`; voxel_size in metres, None: the bundle's.
    """

    def __init__(
        self,
        bundle: str | Path,
        engine: str = "auto",
        label_space: str | Path | None = None,
        voxel_size: float | None = None,
    ) -> None:
        self._bundle, self._engine, self._space, self._voxel_size = bundle, engine, label_space, voxel_size
        self._sequence: str | None = None

    @cached_property
    def segmenter(self) -> Segmenter:
        segmenter = Segmenter.from_bundle(self._bundle, self._engine, label_space=self._space)
        segmenter.voxel_size = self._voxel_size or segmenter.voxel_size
        return segmenter

    @property
    def label_space(self) -> LabelSpace:
        return self.segmenter.label_space

    def __call__(self, frame: Frame) -> Labels:
        segmenter = self.segmenter
        if frame.sequence != self._sequence:  # another lidar
            self._sequence = frame.sequence
            segmenter.intensity = IntensityScale(segmenter.bundle.points.intensity, *(frame.intensity_statistics or ()))
        T = frame.T_base_lidar
        segmenter.rotation = None if T is None else T[:3, :3].astype("float32")
        return segmenter(frame.scan)

    def __getstate__(self) -> dict[str, object]:
        """State for another process, which creates its own segmenter."""
        return {name: value for name, value in self.__dict__.items() if name != "segmenter"}


class StoredLabels:
    """Labels stored with the frames, such as another program's predictions."""

    segmenter = None

    def __init__(self, label_space: LabelSpace, source: str = PREDICTIONS) -> None:
        self.label_space, self.source = label_space, source

    def __call__(self, frame: Frame) -> Labels:
        found = frame.labels.get(self.source)
        if found is None:
            raise UserError(f"{frame.key} has no labels from {self.source}")
        confidence: Float32 = (frame.scan.valid() if found.confidence is None else found.confidence).astype("float32")
        return Labels(found.label, confidence)


class CannotLabel(UserError):
    """Why a frame has no labels. Frames with the same `kind` of reason are counted together.

    serious: whether it is a problem of the input, and not to be expected.
    """

    def __init__(self, text: str, kind: str = "", serious: bool = True) -> None:
        super().__init__(text)
        self.kind, self.serious = kind, serious


@dataclass(frozen=True)
class Result:
    """A frame and its labels, or why it was skipped: the reason, its kind, and whether that is a problem."""

    frame: Frame
    labels: Labels | None
    skipped: str = ""
    kind: str = ""
    serious: bool = True


class Consumer:
    """Processes the results of a run: writes files, computes scores.

    replaces: names of the files and folders in the output folder that it replaces.
    """

    replaces: tuple[str, ...] = ()

    def begin(self) -> None:
        """Called before the first result, if there is one; removes old files. Raises UserError."""

    def add(self, result: Result, report: Report) -> None:
        """Process a result; warnings and problems go to the report."""

    def finish(self, report: Report) -> None:
        """Complete the report, which already has all counts; add the written files to its `files`."""

    def close(self) -> None:
        """Called at the end, also after an error."""


def results(data: DataSet, labeller: Labeller, needs: tuple[str, ...] = ()) -> Iterator[Result]:
    """Label each frame of a data set; frames without labels from any of the sources `needs` are skipped.

    A simulation has a truth for every scan, so a missing one is a problem; of hand labels it is not.
    """
    for frame in data:
        if needs and not any(source in frame.labels for source in needs):
            what = "truth" if TRUTH in needs else f"{' or '.join(needs)} labels"
            yield Result(frame, None, f"it has no {what}", serious=TRUTH in needs)
            continue
        try:
            labels = labeller(frame)
        except CannotLabel as error:
            yield Result(frame, None, str(error), error.kind, error.serious)
            continue
        except UserError as error:
            yield Result(frame, None, str(error))
            continue
        yield Result(frame, labels)


def results_of_parts(
    parts: Iterable[DataSet],
    labeller: Labeller,
    reduce: Callable[[DataSet, Iterator[Result]], R],
    processes: int | None = None,
) -> Iterator[R]:
    """Apply `reduce` to each part and its results, in several processes, in order; see `DataSet.parts`."""
    if processes == 1:
        yield from (reduce(part, results(part, labeller)) for part in parts)
    else:
        yield from process_map(_reduce_part, parts, processes, _begin, (labeller, reduce))


def run(
    data: DataSet,
    labeller: Labeller,
    consumers: Sequence[Consumer],
    report: Report,
    out: Path | None = None,
    *,
    max_frames: int | None = None,
    needs: tuple[str, ...] = (),
    progress: Callable[[int], None] = lambda done: None,
) -> Report:
    """Label all frames and complete the report, which is also written to `out`, if given.

    After an interruption, the report is about the frames labelled until then, and its `finished` is false.

    Args:
        consumers: process the results.
        report: with the command and what is known beforehand.
        max_frames: stop after so many frames.
        needs: label sources; frames that have none of them are skipped.
        progress: called with the number of frames done.

    Raises:
        UserError: there is no frame, or none could be labelled; `out` is not writable, or holds another command's
            results.
        KeyboardInterrupt: the run was interrupted, and its report is written.
    """
    every = results(data, labeller, needs)
    first = next(every, None)  # before old results are replaced
    if first is None:
        raise UserError("; ".join(data.problems) or f"{data.path} contains no scans; record it again")
    if out is not None:
        replaced = [outputs.REPORT, *(name for consumer in consumers for name in consumer.replaces)]
        outputs.claim(out, report.command, replaced, data.path)
    with outputs.writing(out) if out is not None else nullcontext(), interrupts.handled(defer=True) as interrupted:
        try:
            for consumer in consumers:
                consumer.begin()
            tally = Tally(report, labeller, data.path)
            for done, result in enumerate(islice(chain([first], every), max_frames), 1):
                tally.add(result)
                for consumer in consumers:
                    consumer.add(result, report)
                progress(done)
                if interrupted:
                    break
            tally.finish(data.problems, data.notes)
            report.finished = not interrupted
            for consumer in consumers:
                consumer.finish(report)
        finally:
            for consumer in consumers:
                consumer.close()
        if out is not None:
            report.files.append(outputs.REPORT)
            outputs.write_report(out, report.to_json())
    if interrupted:
        raise KeyboardInterrupt
    return report


# Worker processes.
_labeller: Labeller
_reduce: Callable[[DataSet, Iterator[Result]], Any]


def _begin(labeller: Labeller, reduce: Callable[[DataSet, Iterator[Result]], Any]) -> None:
    global _labeller, _reduce
    _labeller, _reduce = labeller, reduce


def _reduce_part(part: DataSet) -> Any:
    return _reduce(part, results(part, _labeller))
