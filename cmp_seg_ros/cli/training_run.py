"""Runs a training for a command: prepares its data, trains with progress, and leaves a report."""

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cmp_seg_ros import interrupts

if TYPE_CHECKING:
    from cmp_seg_ros.bundle import Bundle
    from cmp_seg_ros.training.config import TrainConfig
    from cmp_seg_ros.training.loop import Progress, Trainer

CONFIG = "config.yaml"


def run(
    command: str,
    settings: "TrainConfig",
    out: Path,
    cache: Path | None,
    workers: int,
    as_json: bool,
    given: Path | None = None,
    quiet: bool = False,
) -> None:
    """Train with these settings into `out`, or continue there.

    Args:
        command: of `cmp-seg`.
        cache: folder of what the task prepares; None: `out`/scans.
        workers: processes that load batches.
        given: the configuration file of the user, which may lie in `out`.
        quiet: print no result.

    Raises:
        UserError: see `Trainer`. typer.Exit: interrupted.
    """
    import yaml
    from rich.console import Console

    from cmp_seg_ros.outputs import REPORT, claim, writing
    from cmp_seg_ros.training import tasks
    from cmp_seg_ros.training.log import CSV, has_tensorboard
    from cmp_seg_ros.training.loop import BUNDLE, CHECKPOINT, Trainer

    folder = cache or out / "scans"
    task = tasks.module_of(settings.task).Task(settings, folder)
    trainer = Trainer(task, out, workers)  # raises errors before the slow work
    first = trainer.fabric.is_global_zero
    console = Console(stderr=True, quiet=not first)
    with trainer.fabric.rank_zero_first():
        if first:
            # The trainer has checked that a checkpoint is of this run; the configuration may be the one in `out`.
            replaced = () if (out / CHECKPOINT).exists() else (REPORT, CONFIG, CSV, BUNDLE)
            kept = given and given.resolve()
            claim(out, command, [name for name in replaced if (out / name).resolve() != kept])
            with writing(out):
                (out / CONFIG).write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
            _prepare(trainer)
    if not has_tensorboard():
        console.print("tensorboard is not installed: logging to log.csv only (pip install tensorboard for live curves)")
    bundle = _train(trainer)
    if bundle is None:
        console.print(f"stopped and saved at step {trainer.progress.step}; run the same command to resume")
        raise typer.Exit(interrupts.INTERRUPTED)
    if first:
        _report(command, trainer, bundle, as_json, quiet)


def _prepare(trainer: "Trainer") -> None:
    from cmp_seg_ros.cli.progress import progress_bar

    try:
        with interrupts.explained(interrupts.resumes(trainer.task.folder)):
            for what, total, pieces in trainer.task.prepare():
                with progress_bar(what, total) as update:
                    for done, _ in enumerate(pieces, 1):
                        update(done)
    except KeyboardInterrupt:  # as `_train`; an adaptation says no more
        raise typer.Exit(interrupts.INTERRUPTED) from None


def _train(trainer: "Trainer") -> "Bundle | None":
    from cmp_seg_ros.cli.progress import status_bar

    scored = trainer.progress.scored
    with status_bar("training", disable=not trainer.fabric.is_global_zero) as update:

        def report(progress: "Progress") -> None:
            nonlocal scored
            state = f"step {progress.step}, loss {progress.loss:.3f}, "
            if progress.scores:
                state += f"{progress.measure} {progress.score:.3f}, "
            left = progress.left(trainer.config)
            state += duration(progress.seconds) + (f", {duration(left)} left" if left is not None else "")
            update(progress.fraction(trainer.config), state, progress.scored != scored)  # keep lines with new scores
            scored = progress.scored

        return trainer.run(report)


def _report(command: str, trainer: "Trainer", bundle: "Bundle", as_json: bool, quiet: bool) -> None:
    """Draw the curves, write report.json and print the scores."""
    from rich.table import Table

    from cmp_seg_ros.cli.tables import percent, show
    from cmp_seg_ros.outputs import write_report
    from cmp_seg_ros.training.log import CSV, title_of
    from cmp_seg_ros.training.pictures import curves

    out, progress, name = trainer.out, trainer.progress, trainer.config.name
    curves(out / CSV, out / "curves.png")
    scores = bundle.description.measured["validation"]
    result: dict[str, Any] = {"command": command, "name": name, "steps": progress.step}
    result |= {"hours": progress.seconds / 3600, "validation": scores}
    write_report(out, result)
    if quiet:
        return
    if as_json:
        print(json.dumps(result))
        return
    table = Table("validation", "score", title=f"{name} after {progress.step} steps")
    for score, value in scores.items():
        table.add_row(title_of(score), percent(value) if "iou" in score else f"{value:.3f}")
    show(table, f"bundle in {bundle.path}")


def duration(seconds: float) -> str:
    """Format as 1:02:03."""
    return str(timedelta(seconds=round(seconds)))
