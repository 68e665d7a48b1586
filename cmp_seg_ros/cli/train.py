"""`cmp-seg train`, `cmp-seg distill`, `cmp-seg probe` and `cmp-seg finetune`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cmp_seg_ros.cli import options

Data = Annotated[list[Path], typer.Argument(help="Data sets of `cmp-seg convert`, with a validation split.")]
Start = Annotated[str | None, typer.Option(help="Bundle whose weights the run begins with.")]
Source = Annotated[str, typer.Option(help="Source of the labels: pseudo, truth, hand.")]
Head = Annotated[str | None, typer.Option(help="linear, mlp, or with finetune keep; default: that of the recipe.")]


def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or a name in config/training/.")],
    out: options.Run,
    hours: options.Hours = None,
    devices: options.Devices = None,
    cache: options.Cache = None,
    workers: options.Workers = 1,
    as_json: options.Json = False,
) -> None:
    """Train a bundle on simulated buildings. An interrupted run resumes exactly where it stopped.

    First the buildings are simulated, once, on all processors, into the cache. Then training begins, and with it the
    time budget. Each validation updates OUT/validation.png (labels of the network) and log.csv (scores).
    """
    from cmp_seg_ros.cli.training_run import run
    from cmp_seg_ros.training import tasks

    changes = {name: value for name, value in (("hours", hours), ("devices", devices)) if value is not None}
    settings = tasks.load_config(config).model_copy(update=changes)
    run("train", settings, out, cache, workers, as_json, Path(config))


def distill(
    data: Data,
    out: options.Run,
    teacher: Annotated[str | None, typer.Option(help="Image model, as in `cmp-seg teachers`.")] = None,
    recipe: options.Recipe = "scalr",
    start: Start = None,
    calibration: options.Calibration = None,
    hours: options.Hours = None,
    devices: options.Devices = None,
    cache: options.Cache = None,
    workers: options.Workers = 1,
    as_json: options.Json = False,
) -> None:
    """Teach a lidar network the features of an image model (ScaLR). No labels are needed.

    First the teacher sees all images, once; its features at the points are kept in the cache. Then training begins, and
    with it the time budget. The result is a bundle of features, for `cmp-seg probe` and `cmp-seg finetune`.
    """
    changes = {"teacher": teacher, "start": start, "hours": hours, "devices": devices}
    _teach("distill", data, out, recipe, changes, calibration, "", cache, workers, as_json)


def probe(
    data: Data,
    out: options.Run,
    start: Start = None,
    labels: Source = "pseudo",
    head: Head = None,
    recipe: options.Recipe = "scalr-probe",
    calibration: options.Calibration = None,
    hours: options.Hours = None,
    devices: options.Devices = None,
    cache: options.Cache = None,
    workers: options.Workers = 1,
    as_json: options.Json = False,
) -> None:
    """Train a classifier on the features of a frozen bundle (ScaLR's linear probing, or a small MLP)."""
    changes = {"start": start, "head": head, "hours": hours, "devices": devices}
    _teach("probe", data, out, recipe, changes, calibration, labels, cache, workers, as_json)


def finetune(
    data: Data,
    out: options.Run,
    start: Start = None,
    labels: Source = "pseudo",
    head: Head = None,
    recipe: options.Recipe = "scalr-finetune",
    calibration: options.Calibration = None,
    hours: options.Hours = None,
    devices: options.Devices = None,
    cache: options.Cache = None,
    workers: options.Workers = 1,
    as_json: options.Json = False,
) -> None:
    """Train a whole bundle on the labels of data sets, the first layers slowest (ScaLR's fine-tuning)."""
    changes = {"start": start, "head": head, "hours": hours, "devices": devices}
    _teach("finetune", data, out, recipe, changes, calibration, labels, cache, workers, as_json)


def _teach(
    command: str,
    data: list[Path],
    out: Path,
    recipe: str,
    changes: dict[str, Any],
    calibration: Path | None,
    labels: str,
    cache: Path | None,
    workers: int,
    as_json: bool,
) -> None:
    """Train on data sets, with a recipe of the command; `changes`: its fields with other values, None for the same."""
    from cmp_seg_ros.cli.training_run import run
    from cmp_seg_ros.errors import UserError
    from cmp_seg_ros.training import tasks

    known = {"calibration": calibration and str(calibration)} | ({"labels": labels} if labels else {})
    given = {name: value for name, value in changes.items() if value is not None}
    settings = tasks.load_config(recipe, sets=[{"path": str(path), **known} for path in data], **given)
    if settings.task != command:
        raise UserError(f"recipe {recipe} is of `cmp-seg {settings.task}`; give one whose `task` is {command}")
    run(command, settings, out, cache, workers, as_json, Path(recipe))
