"""`cmp-seg train`."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or a name in config/training/.")],
    out: Annotated[
        Path, typer.Option(help="Folder of the run: checkpoint, log, pictures, bundle. A run resumes here.")
    ],
    hours: Annotated[
        float | None, typer.Option(help="Time budget; the schedule ends with it.", min=0.001, max=8760)
    ] = None,
    devices: Annotated[
        int | None, typer.Option(help="Number of GPUs, or of processes without a GPU; default 1.", min=1)
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of simulated scans; by default OUT/scans.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that prepare batches, for each device.", min=0)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
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
