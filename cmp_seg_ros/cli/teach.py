"""`cmp-seg distill`, `cmp-seg probe` and `cmp-seg finetune`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cmp_seg_ros.cli import options

Data = Annotated[list[Path], typer.Argument(help="Data sets: what `cmp-seg convert` wrote, bags, folders of pairs.")]
Start = Annotated[str | None, typer.Option(help="Bundle whose weights the run begins with.")]
Source = Annotated[str, typer.Option(help="Source of the labels: pseudo, truth, hand.")]


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
    _run("distill", recipe, _sets(data, calibration), changes, out, cache, workers, as_json)


def probe(
    data: Data,
    out: options.Run,
    start: Start = None,
    labels: Source = "pseudo",
    head: Annotated[str | None, typer.Option(help="linear or mlp; default: that of the recipe.")] = None,
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
    _run("probe", recipe, _sets(data, calibration, labels), changes, out, cache, workers, as_json)


def finetune(
    data: Data,
    out: options.Run,
    start: Start = None,
    labels: Source = "pseudo",
    head: Annotated[str | None, typer.Option(help="keep, linear or mlp; default: that of the recipe.")] = None,
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
    _run("finetune", recipe, _sets(data, calibration, labels), changes, out, cache, workers, as_json)


def _sets(data: list[Path], calibration: Path | None, labels: str = "") -> list[dict[str, Any]]:
    known = {"calibration": None if calibration is None else str(calibration), **({"labels": labels} if labels else {})}
    return [{"path": str(path), **known} for path in data]


def _run(
    command: str,
    recipe: str,
    sets: list[dict[str, Any]],
    changes: dict[str, Any],
    out: Path,
    cache: Path | None,
    workers: int,
    as_json: bool,
) -> None:
    from cmp_seg_ros.cli.training_run import run
    from cmp_seg_ros.errors import UserError
    from cmp_seg_ros.training import tasks

    given = {name: value for name, value in changes.items() if value is not None}
    settings = tasks.load_config(recipe, sets=sets, **given)
    if settings.task != command:
        raise UserError(f"recipe {recipe} is of `cmp-seg {settings.task}`; give one whose `task` is {command}")
    run(command, settings, out, cache, workers, as_json, Path(recipe))
