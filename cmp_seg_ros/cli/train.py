"""`cmp-seg train`."""

import json
import signal
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Annotated

import typer

CONFIG = "config.yaml"


def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or a name in config/training/.")],
    out: Annotated[
        Path, typer.Option(help="Folder of the run: checkpoint, log, pictures, bundle. A run resumes here.")
    ],
    hours: Annotated[
        float | None, typer.Option(help="Time budget; the schedule ends with it.", min=0.001, max=8760)
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of simulated scans; by default OUT/scans.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that prepare batches.", min=0)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Train a bundle on simulated buildings. Stops and resumes exactly where it was.

    First the buildings are simulated, once, on all processors, into the cache. Then the training begins, and with it
    the time budget. At every validation OUT/validation.png shows what the network says, and log.csv what it scores.
    """
    import yaml
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.table import Table

    from cmp_seg_ros.outputs import REPORT, claim, write_report, writing
    from cmp_seg_ros.training.cache import ScanCache
    from cmp_seg_ros.training.config import TrainConfig
    from cmp_seg_ros.training.log import CSV, has_tensorboard, title_of
    from cmp_seg_ros.training.loop import BUNDLE, CHECKPOINT, Progress, Trainer, summary
    from cmp_seg_ros.training.pictures import curves

    settings = TrainConfig.load(config)
    if hours is not None:
        settings = settings.model_copy(update={"hours": hours})
    data = settings.data
    folder = cache or out / "scans"
    training = ScanCache(folder, settings.label_space, data.scans_per_building)
    validation = ScanCache(folder, settings.label_space, 2, data.validation_sensor)
    trainer = Trainer(settings, training, validation, out, workers)  # complains before the simulator's work
    # A checkpoint that the trainer has taken is of this very run; the configuration may lie where it is kept.
    replaced = () if (out / CHECKPOINT).exists() else (REPORT, CONFIG, CSV, BUNDLE)
    claim(out, "train", [name for name in replaced if (out / name).resolve() != Path(config).resolve()])
    with writing(out):
        (out / CONFIG).write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))

    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    try:
        with Bar(*columns, console=console) as bar:
            first = data.first_validation_building
            for name, scans, seeds in (
                ("validation", validation, range(first, first + data.validation_buildings)),
                ("training", training, data.seeds),
            ):
                filling = scans.fill(seeds)
                for _ in bar.track(filling, total=len(seeds), description=f"simulating {name} buildings"):
                    pass
    except KeyboardInterrupt:
        kept = f"stopped; the buildings simulated so far are kept in {folder}, and the same command goes on from there"
        console.print(kept, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    if not has_tensorboard():
        console.print(
            "no tensorboard here: the log goes to log.csv alone (pip install tensorboard for curves while it runs)"
        )
    with Bar("{task.description}", BarColumn(), TaskProgressColumn(), console=console) as bar:
        task = bar.add_task("training", total=1)
        scored = trainer.progress.scored

        def report(progress: Progress) -> None:
            nonlocal scored
            left = progress.left(settings)
            state = f"step {progress.step}, loss {progress.loss:.3f}, "
            if progress.scored >= 0:
                state += f"{progress.measure} {progress.score:.3f}, "
            state += duration(progress.seconds) + (f", {duration(left)} left" if left is not None else "")
            bar.update(task, completed=progress.fraction(settings), description=state)
            if progress.scored != scored:  # for those who read it later
                scored = progress.scored
                bar.console.print(state, highlight=False)

        stop = Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        bundle = trainer.run(report, stop.is_set)
    if bundle is None:
        console.print(f"stopped and saved at step {trainer.progress.step}; the same command goes on from there")
        raise typer.Exit(130)
    curves(out / CSV, out / "curves.png")
    scores = bundle.description.measured["validation"]
    result = {"command": "train", **summary(settings, trainer.progress, scores)}
    write_report(out, result)
    if as_json:
        print(json.dumps(result))
    else:
        table = Table("validation scans", "IoU", title=f"{settings.name} after {trainer.progress.step} steps")
        for name, value in scores.items():
            table.add_row(title_of(name), "-" if value is None else f"{value:.1%}")
        output = Console(highlight=False, soft_wrap=True)
        output.print(table)
        output.print(f"bundle in {bundle.path}", markup=False)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:02:03."""
    return str(timedelta(seconds=round(seconds)))
