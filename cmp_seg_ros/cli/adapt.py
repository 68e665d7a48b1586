"""`cmp-seg adapt`."""

from pathlib import Path
from typing import Annotated

import typer

from cmp_seg_ros import interrupts
from cmp_seg_ros.cli import options


def adapt(
    recordings: Annotated[
        list[Path], typer.Argument(help="Bags, folders of pairs, or data sets of `cmp-seg convert`, of one robot.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of data, training, bundle and page. An adaptation resumes here.")],
    calibration: options.Calibration = None,
    teacher: Annotated[str, typer.Option(help="Image model, as in `cmp-seg teachers`.")] = "mosaic",
    hours: Annotated[float, typer.Option(help="Time budget of the training.", min=0.001, max=8760)] = 1.0,
    start: Annotated[str, typer.Option(help="Bundle to adapt.")] = "waffleiron24-128",
    recipe: Annotated[str, typer.Option(help="Configuration of the training: a file, or a name.")] = "adapt",
    topic: options.Topic = "",
    held_back: Annotated[float, typer.Option(help="Share of each sequence for the test.", min=0.05, max=0.9)] = 0.2,
    buildings: Annotated[
        int | None, typer.Option(help="Simulated buildings that show what was forgotten; by default all.", min=1)
    ] = None,
    average: Annotated[
        bool, typer.Option(help="Take the mean of the old and the new weights: as much gained, nothing forgotten.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Go on with a calibration that fails the check.")] = False,
    workers: options.Workers = 1,
    as_json: options.Json = False,
) -> None:
    """Adapt a bundle to recordings of your robot, without labels, and say whether it became better.

    A camera and an image model teach the lidar network: convert, check the calibration, pseudo-label, fine-tune, and
    compare with the bundle before, on a stretch that was held back. OUT/page.html has figures, pictures and advice;
    OUT/bundle the new bundle. The same command resumes.
    """
    from rich.console import Console

    from cmp_seg_ros.adaptation.run import BUNDLE, NEW, OLD, TRAINING, Adaptation, Settings
    from cmp_seg_ros.cli.progress import progress_bar
    from cmp_seg_ros.cli.tables import print_warnings
    from cmp_seg_ros.cli.training_run import run
    from cmp_seg_ros.evaluation.page import HTML
    from cmp_seg_ros.outputs import REPORT, writing
    from cmp_seg_ros.teachers.base import open_teacher

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    settings = Settings(
        recordings=[str(path) for path in recordings],
        calibration=None if calibration is None else str(calibration),
        topic=topic,
        teacher=teacher,
        start=start,
        recipe=recipe,
        hours=hours,
        held_back=held_back,
        average=average,
        buildings=buildings,
    )
    open_teacher(teacher)  # raises errors before the work
    work = Adaptation(settings, out)
    with interrupts.explained(interrupts.resumes(out)), writing(out):
        work.begin()
        print_warnings(work.convert(progress_bar))
        _ = work.stretches  # raises an error now if the recording is too short
        checked = work.check(progress_bar, force)
        labelled = work.label(progress_bar)
        console.print(f"the teacher labelled {labelled.covered:.0%} of the points that are learnt from", markup=False)
        if not work.is_trained:
            run("finetune", work.training(), out / TRAINING, out / "scans", workers, as_json=False, quiet=True)
        bundles = {OLD: work.start, NEW: work.export()}
        reports = {which: work.evaluate(which, bundle, progress_bar) for which, bundle in bundles.items()}
        for which, bundle in bundles.items():
            work.remember(which, bundle, progress_bar)
        verdict = work.conclude(labelled, reports, checked)
    if as_json:
        print((out / REPORT).read_text(), end="")
        return
    print(verdict.title)
    for reason in verdict.reasons:
        print(f"- {reason}")
    print(f"page: {out / HTML}\nbundle: {out / BUNDLE}")
