"""`cmp-seg train`."""

from pathlib import Path
from typing import Annotated

import typer

from cmp_seg_ros.cli import options


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
