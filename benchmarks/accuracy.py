"""Accuracy of a bundle on simulated buildings that no training has seen, by sensor.

    python benchmarks/accuracy.py [--model M] [--engine E] [--buildings 20] [--scans 2] [--sensors A,B] [--json]

Points are counted over all scans of a sensor; the interval is a bootstrap over buildings (2.5 % to 97.5 %).
"""

import json
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from cmp_seg_ros import Segmenter
from cmp_seg_ros.bundle import DEFAULT_BUNDLE
from cmp_seg_ros.evaluation.metrics import Confusion
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.simulation.generate import scans_of_building
from cmp_seg_ros.simulation.lidar import sensor_names

FIRST_BUILDING = 20_000_000  # training takes those from 1,000,000, its validation those from 10,000,000
RESAMPLES = 1000


def main(
    model: str = DEFAULT_BUNDLE,
    engine: str = "auto",
    buildings: int = 20,
    scans: int = 2,
    sensors: str = "",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    results = {}
    for sensor in sensors.split(",") if sensors else sensor_names():
        numbers = track(range(buildings), description=sensor, console=Console(stderr=True))
        results[sensor] = summary([building(FIRST_BUILDING + i, scans, sensor, model, engine) for i in numbers])
    if as_json:
        print(json.dumps(results, indent=2))
        return
    classes = list(next(iter(results.values()))["iou"])
    table = Table("", *results, title=f"IoU of {model} in {buildings} buildings, per cent")
    table.add_row("mIoU, primary", *(percent(result["miou"]) for result in results.values()))
    intervals = (result["interval"] for result in results.values())
    table.add_row("95 % interval", *(f"{100 * low:.0f}-{100 * high:.0f}" for low, high in intervals))
    table.add_row("mIoU, strict", *(percent(result["miou_strict"]) for result in results.values()))
    for name in classes:
        table.add_row(name, *(percent(result["iou"][name]) for result in results.values()))
    Console().print(table)


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def building(seed: int, scans: int, sensor: str, model: str, engine: str) -> Confusion:
    """Label some scans of one building. Each has a lidar of its own, so each has a segmenter of its own."""
    space = LabelSpace.load("structural6")
    truth = space.id_map(LabelSpace.load("indoor"))
    confusion = Confusion(space)
    for scan, label, T_base_lidar in scans_of_building(seed, scans, sensor):
        confusion.add(truth[label], Segmenter.from_bundle(model, engine, T_base_lidar)(scan).label)
    return confusion


def summary(confusions: list[Confusion]) -> dict[str, Any]:
    """Scores over all buildings, and the bootstrap interval of the primary mIoU."""
    rng = np.random.default_rng(0)
    primaries = [confusion.structural4("primary") for confusion in confusions]
    draws = [total([primaries[i] for i in rng.integers(len(primaries), size=len(primaries))]) for _ in range(RESAMPLES)]
    interval = np.nanquantile([draw.miou() for draw in draws], (0.025, 0.975))
    everything, primary = total(confusions), total(primaries)
    return {
        "miou": primary.miou(),
        "interval": interval.tolist(),
        "miou_strict": everything.structural4("strict").miou(),
        "iou": primary.iou() | {f"{name} (6)": everything.iou()[name] for name in ("flush", "object", "person")},
        "points": everything.points(),
    }


def total(confusions: list[Confusion]) -> Confusion:
    """The sum of several."""
    result = Confusion(confusions[0].space)
    for confusion in confusions:
        result += confusion
    return result


if __name__ == "__main__":
    typer.run(main)
