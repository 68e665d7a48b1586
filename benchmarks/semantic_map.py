"""How good is the semantic map: what fusion adds, how far its walls are off, how long it takes.

    python benchmarks/semantic_map.py --out out/semantic-map                    # all drives of 40 s, resumed
    python benchmarks/semantic_map.py --out out/semantic-map --only house-1     # one of them
    python benchmarks/semantic_map.py --out out/semantic-map --only long        # ten minutes, for time and memory

Each drive is simulated, labelled once, and mapped twice: with the exact odometry of the recording and with KISS-ICP.
Its labels are kept: after a change of the fusion, remove result.json of a drive to map it again.
What is run is fixed in config/benchmarks/semantic-map-v1.yaml.
"""

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import trimesh
import typer
import yaml
from rich.console import Console
from rich.table import Table
from scipy.spatial import cKDTree

from cmp_seg_ros import resources
from cmp_seg_ros.bundle import DEFAULT_BUNDLE
from cmp_seg_ros.cli.demo import simulate_once
from cmp_seg_ros.datasets import open_input
from cmp_seg_ros.datasets.frame import Frame
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.bootstrap import Bootstrap, pack, unpack
from cmp_seg_ros.evaluation.metrics import merges
from cmp_seg_ros.evaluation.pipeline import Model, run
from cmp_seg_ros.evaluation.report import Gain, Report
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.mapping.drive import DriveMap
from cmp_seg_ros.mapping.gain import gains_of
from cmp_seg_ros.memory import peak_mb
from cmp_seg_ros.scan import Labels
from cmp_seg_ros.simulation.building import Building, make_building
from cmp_seg_ros.simulation.mesh import indoor
from cmp_seg_ros.simulation.scene_folder import load_scene

Float64 = npt.NDArray[np.float64]
CONFIG = "config/benchmarks/semantic-map-v1.yaml"
RESULT = "result.json"
HEIGHTS = np.arange(0.2, 1.9, 0.15)  # metres at which true walls are cut
STEP = 0.02  # metres between places on a true wall
ODOMETRY = ("recorded", "kiss-icp")


def main(
    out: Annotated[Path, typer.Option(help="Folder for drives and results.")],
    only: Annotated[str, typer.Option(help="Drives to run, separated by commas; by default all but `long`.")] = "",
    data: Annotated[
        Path | None, typer.Option(help="Folder of the scenes; by default $CMP_SEG_SHARED_DATA/scenes.")
    ] = None,
    model: Annotated[str, typer.Option(help="A bundle: a folder, or a name in models/.")] = DEFAULT_BUNDLE,
    workers: Annotated[
        int | None, typer.Option(help="Processes that simulate; by default one per core.", min=1)
    ] = None,
) -> None:
    config = yaml.safe_load(resources.resource(CONFIG).read_text())
    scenes = data or Path(os.environ.get("CMP_SEG_SHARED_DATA", "../shared/data")) / "scenes"
    drives = config["drives"] | {"long": config["long"]}
    names = [name for name in only.split(",") if name] or list(config["drives"])
    if unknown := sorted(set(names) - set(drives)):
        raise UserError(f"no drive {', '.join(unknown)} in {CONFIG}; it has: {', '.join(drives)}")
    for name in names:
        if not (out / name / RESULT).exists():
            print(f"{name} ...", flush=True)
            measure(out / name, config | drives[name], scenes, model, workers)
    summarise(out, config)


def measure(folder: Path, about: dict[str, Any], scenes: Path, model: str, workers: int | None) -> None:
    """Simulate, label and map a drive, and write result.json."""
    scene = scenes / about["scene"] if "scene" in about else None
    options = ["--seed", about["seed"], "--sensor", about["sensor"], "--seconds", about["seconds"], "--rate", 10]
    options += ["--scene", scene] if scene else []
    options += ["--processes", workers] if workers else []
    simulate_once(folder / "drive", *options, "--no-camera")
    data = open_input(folder / "drive", sensors=SensorSet.around(folder / "drive"))
    labeller = Kept(model, folder / "labels", about["every"])
    space, truth = labeller.label_space, data.label_spaces["truth"]
    consumers = {}
    for odometry in ODOMETRY:
        (folder / odometry).mkdir(parents=True, exist_ok=True)
        consumers[odometry] = DriveMap(data, space, folder / odometry, odometry)
    start = time.perf_counter()
    report = run(data, labeller, list(consumers.values()), Report.of("map", data))
    building = load_scene(scene, about["seed"]) if scene else make_building(about["seed"])
    wall = cKDTree(true_walls(building))
    T_world_first = consumers["recorded"].motions[0].start
    result: dict[str, Any] = {
        "seconds": about["seconds"],
        "wall_seconds": round(time.perf_counter() - start, 1),
        "label_ms": report.latency_ms,
        "memory_mb": round(peak_mb()),
        "engine": report.engine,
        "processor": report.machine.processor,
        "spaces": [truth.name, space.name],
        "odometry": {},
    }
    for odometry, consumer in consumers.items():
        found = consumer.result
        assert found is not None and consumer.score is not None
        T = T_world_first @ np.linalg.inv(consumer.motions[0].start)  # both begin at the same place
        cells = wall_cells(consumer, space)
        distance = wall.query(cells @ T[:2, :2].T + T[:2, 3])[0]
        last = max(consumer.motions)
        drift = np.linalg.inv(consumers["recorded"].motions[last].start) @ T @ consumer.motions[last].start
        result["odometry"][odometry] = {
            "wall_median": float(np.median(distance)),
            "wall_p90": float(np.percentile(distance, 90)),
            "wall_cells": len(cells),
            "drift_m": float(np.linalg.norm(drift[:3, 3])),
            "seconds": found.seconds,
            "voxels": found.voxels,
            "moving": found.moving,
            "metres": found.metres,
            "complete": found.complete,
            "gain": {name: gain.model_dump() for name, gain in (found.gain or {}).items()},
            "groups": {name: [pack(counts) for counts in both] for name, both in consumer.score.groups.items()},
        }
    (folder / RESULT).write_text(json.dumps(result, indent=1) + "\n")


class Kept(Model):
    """A model whose labels are kept in a folder, probabilities as float16, so that a drive can be mapped again.

    Args:
        every: only one scan in so many is labelled.
    """

    def __init__(self, bundle: str, folder: Path, every: int) -> None:
        super().__init__(bundle)
        self.every = every
        self.folder = folder / self.segmenter.bundle.hash[:12]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.segmenter.probabilities = True

    def __call__(self, frame: Frame) -> Labels:
        if frame.number % self.every:
            raise UserError("not among those to be labelled")
        path = self.folder / f"{frame.number:06d}.npz"
        if not path.exists():
            labels = super().__call__(frame)
            assert labels.probabilities is not None
            ms = [sum(labels.stages_ms.values()), labels.voxels, labels.voxel_size]
            with path.with_suffix(".tmp").open("wb") as file:
                half = labels.probabilities.astype(np.float16)
                np.savez(file, label=labels.label, confidence=labels.confidence, probabilities=half, ms=ms)
            path.with_suffix(".tmp").replace(path)
        with np.load(path) as kept:
            ms, voxels, size = kept["ms"].tolist()
            probabilities = kept["probabilities"].astype(np.float32)
            stages = {"labelling": ms}
            return Labels(kept["label"], kept["confidence"], int(voxels), size, stages, probabilities)


def true_walls(building: Building) -> Float64:
    """(K, 2) places on the true walls, and on what lies flush in them, cut at several heights."""
    space = indoor()
    names = ("wall", "door", "window", "curtain", "board")
    ids = [space.ids[space.names.index(name)] for name in names]
    triangles = building.mesh.triangles[np.isin(building.mesh.label, ids)].astype(np.float64)  # (T, 3, 3)
    mesh = trimesh.Trimesh(**trimesh.triangles.to_kwargs(triangles), process=False)
    found = []
    for height in HEIGHTS:
        for first, last in trimesh.intersections.mesh_plane(mesh, (0, 0, 1), (0, 0, height))[:, :, :2]:
            count = max(2, int(np.linalg.norm(last - first) / STEP))
            found.append(first + np.linspace(0, 1, count)[:, None] * (last - first))
    return np.concatenate(found)


def wall_cells(consumer: DriveMap, space: LabelSpace) -> Float64:
    """(K, 2) centres of the cells of the floor plan that are wall."""
    grid = consumer.grid
    assert grid is not None
    row, column = np.nonzero(grid.label == space.ids[space.names.index("wall")])
    cells = np.stack([column, row], axis=1) + 0.5
    return np.asarray(cells * grid.resolution + grid.origin, np.float64)


def summarise(out: Path, config: dict[str, Any]) -> None:
    """Print and write the figures of all drives that were run."""
    found = {path.parent.name: json.loads(path.read_text()) for path in sorted(out.glob(f"*/{RESULT}"))}
    table = Table("drive", "odometry", "single", "map", "gain", "walls, median / p90 (cm)", "drift (m)", "voxels")
    for name, result in found.items():
        for odometry, one in result["odometry"].items():
            gain = one["gain"]["structural6"]
            table.add_row(
                name, odometry, f"{100 * gain['single']:.1f}", f"{100 * gain['fused']:.1f}",
                f"{100 * gain['difference']:+.1f}", f"{100 * one['wall_median']:.1f} / {100 * one['wall_p90']:.1f}",
                f"{one['drift_m']:.2f}", f"{one['voxels']:,}",
            )  # fmt: skip
    sets = {"buildings": "building", "house": "house", "hospital": "hospital", "scenes": "ho"}  # by prefix of the names
    pooled = {}
    totals = Table("set", "odometry", "reading", "single", "map", "gain", "interval")
    for name, prefix in sets.items():
        drives = {key: one for key, one in found.items() if key.startswith(prefix) and key != "long"}
        for odometry in ODOMETRY if drives else ():
            for reading, gain in pooled_gains(drives, odometry, Bootstrap(**config["bootstrap"])).items():
                pooled[f"{name}/{odometry}/{reading}"] = gain.model_dump()
                interval = gain.interval or (np.nan, np.nan)
                values = [gain.single or np.nan, gain.fused or np.nan, gain.difference or np.nan]
                shown = (f"{100 * value:.1f}" for value in values)
                between = f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"
                totals.add_row(name, odometry, reading, *shown, between)
    console = Console(width=140)
    console.print(table)
    console.print(totals)
    (out / "summary.json").write_text(
        json.dumps({"config": config, "drives": found, "pooled": pooled}, indent=1) + "\n"
    )


def pooled_gains(drives: dict[str, Any], odometry: str, bootstrap: Bootstrap) -> dict[str, Gain]:
    """Gains of several drives together, by reading."""
    groups = {
        f"{name}/{group}": unpack(both).astype(np.int64)
        for name, result in drives.items()
        for group, both in result["odometry"][odometry]["groups"].items()
    }
    truth, labels = (LabelSpace.load(name) for name in next(iter(drives.values()))["spaces"])
    return gains_of(groups, merges(truth, labels), bootstrap)


if __name__ == "__main__":
    typer.run(main)
