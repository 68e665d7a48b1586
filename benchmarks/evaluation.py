"""How much of an evaluation's time is the engine's, and how much memory it takes.

    python benchmarks/evaluation.py drive --scans 2000

The goal: over 2,000 scans, without the start and the page, an evaluation with truth runs at 0.85 of the engine's own
rate; a bag of 2 GB in under 1.5 GB of memory. Both rates are measured in the same run, so other load on the machine
slows down both. A recording with fewer scans is read again and again.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cmp_seg_ros import memory
from cmp_seg_ros.bundle import DEFAULT_BUNDLE
from cmp_seg_ros.cli.progress import progress_bar
from cmp_seg_ros.datasets import open_input
from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.datasets.frame import Frame
from cmp_seg_ros.evaluation.pipeline import Consumer, Model, Result, run
from cmp_seg_ros.evaluation.report import Report
from cmp_seg_ros.evaluation.scoring import consumers_for, sources_of
from cmp_seg_ros.geometry.sensor_set import SensorSet

RATE, MEMORY_MB = 0.85, 1500.0
WARM_UP = 5  # scans that are not counted


class Repeated(DataSet):
    """A data set over and over, each time as another sequence."""

    def __init__(self, data: DataSet) -> None:
        super().__init__(data.path, data.topic, data.sensors)
        self.data, self.label_spaces = data, data.label_spaces

    def __iter__(self) -> Iterator[Frame]:
        for turn in count():
            for frame in self.data:
                yield replace(frame, key=f"{turn}/{frame.key}", group=f"{turn}/{frame.group}")


class Stopwatch(Consumer):
    """Seconds since the warm-up, and those that labelling took; last of the consumers."""

    def __init__(self) -> None:
        self.scans, self.start, self.seconds, self.labelling = 0, 0.0, 0.0, 0.0

    def add(self, result: Result, report: Report) -> None:
        self.scans += 1
        now = time.perf_counter()
        if self.scans <= WARM_UP:
            self.start = now
        elif result.labels is not None:
            self.seconds = now - self.start
            self.labelling += 1e-3 * sum(result.labels.stages_ms.values())


def benchmark(
    input: Annotated[Path, typer.Argument(help="A recording, as for cmp-seg evaluate.")],
    scans: Annotated[int, typer.Option(help="Number of scans.", min=WARM_UP + 2)] = 2000,
    model: Annotated[str, typer.Option(help="A bundle: a folder, or a name in models/.")] = DEFAULT_BUNDLE,
    engine: Annotated[str, typer.Option(help="What runs the network.")] = "auto",
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 where a goal is missed.")] = False,
) -> None:
    """Print the figures as JSON."""
    data = Repeated(open_input(input, sensors=SensorSet.around(input)))
    labeller, watch = Model(model, engine), Stopwatch()
    consumers = [*consumers_for(data, labeller.label_space, sources_of(data)), watch]
    report = Report.of("evaluate", data)
    with progress_bar("scans", scans) as progress:
        run(data, labeller, consumers, report, max_frames=scans, progress=progress)
    counted, ratio, peak = watch.scans - WARM_UP, watch.labelling / watch.seconds, memory.peak_mb()
    found = {
        "scans": counted,
        "engine": report.engine,
        "engine_hz": counted / watch.labelling,
        "evaluation_hz": counted / watch.seconds,
        "ratio": ratio,
        "memory_mb": peak,
    }
    Console(highlight=False).print(json.dumps(found, indent=1))
    if check and (ratio < RATE or peak > MEMORY_MB):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(benchmark)
