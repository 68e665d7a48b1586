"""`cmp-seg distill`, `cmp-seg probe` and `cmp-seg finetune`."""

from pathlib import Path
from typing import Annotated, Any

import typer

Data = Annotated[list[Path], typer.Argument(help="Data sets: what `cmp-seg convert` wrote, bags, folders of pairs.")]
Out = Annotated[Path, typer.Option(help="Folder of the run: checkpoint, log, pictures, bundle. A run resumes here.")]
Recipe = Annotated[str, typer.Option(help="A YAML file, or a name in config/training/.")]
Start = Annotated[str | None, typer.Option(help="Bundle whose weights the run begins with.")]
Source = Annotated[str, typer.Option(help="Source of the labels: pseudo, truth, hand.")]
Calibration = Annotated[Path | None, typer.Option(help="Calibration file; by default calibration.yaml in the data.")]
Hours = Annotated[float | None, typer.Option(help="Time budget; the schedule ends with it.", min=0.001, max=8760)]
Devices = Annotated[int | None, typer.Option(help="Number of GPUs, or of processes; default 1.", min=1)]
Cache = Annotated[Path | None, typer.Option(help="Folder of prepared scans; by default OUT/scans.")]
Workers = Annotated[int, typer.Option(help="Processes that prepare batches, for each device.", min=0)]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


def distill(
    data: Data,
    out: Out,
    teacher: Annotated[str | None, typer.Option(help="Image model, as in `cmp-seg teachers`.")] = None,
    recipe: Recipe = "scalr",
    start: Start = None,
    calibration: Calibration = None,
    hours: Hours = None,
    devices: Devices = None,
    cache: Cache = None,
    workers: Workers = 1,
    as_json: Json = False,
) -> None:
    """Teach a lidar network the features of an image model (ScaLR). No labels are needed.

    First the teacher sees all images, once; its features at the points are kept in the cache. Then training begins, and
    with it the time budget. The result is a bundle of features, for `cmp-seg probe` and `cmp-seg finetune`.
    """
    changes = {"teacher": teacher, "start": start, "hours": hours, "devices": devices}
    _run("distill", recipe, _sets(data, calibration), changes, out, cache, workers, as_json)


def probe(
    data: Data,
    out: Out,
    start: Start = None,
    labels: Source = "pseudo",
    head: Annotated[str | None, typer.Option(help="linear or mlp; default: that of the recipe.")] = None,
    recipe: Recipe = "scalr-probe",
    calibration: Calibration = None,
    hours: Hours = None,
    devices: Devices = None,
    cache: Cache = None,
    workers: Workers = 1,
    as_json: Json = False,
) -> None:
    """Train a classifier on the features of a frozen bundle (ScaLR's linear probing, or a small MLP)."""
    changes = {"start": start, "head": head, "hours": hours, "devices": devices}
    _run("probe", recipe, _sets(data, calibration, labels), changes, out, cache, workers, as_json)


def finetune(
    data: Data,
    out: Out,
    start: Start = None,
    labels: Source = "pseudo",
    head: Annotated[str | None, typer.Option(help="keep, linear or mlp; default: that of the recipe.")] = None,
    recipe: Recipe = "scalr-finetune",
    calibration: Calibration = None,
    hours: Hours = None,
    devices: Devices = None,
    cache: Cache = None,
    workers: Workers = 1,
    as_json: Json = False,
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
