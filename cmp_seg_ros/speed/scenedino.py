"""The full-size SceneDINO network three ways, each in a process of its own: as published, plain, and the engine.

python -m cmp_seg_ros.speed.scenedino WAY TURNS SHIFT.json RESULT.npz

All have the same random weights (none are published here), with the density's bias such that 15 % of the voxels in the
view are occupied. The published way takes 524,288 points at a time through the whole chain, every voxel, occupied or
not; its pass of the teacher network, whose result nobody uses, is left out. The plain way is the same network with
density first, and classes only where occupied and in view.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cmp_seg_ros import memory
from cmp_seg_ros.kernels.launch import threads
from cmp_seg_ros.occupancy.grid import FREE, UNKNOWN, Grid
from cmp_seg_ros.scan import Float32, UInt8
from cmp_seg_ros.scenedino.config import FieldConfig, VitConfig
from cmp_seg_ros.scenedino.field import FeatureField
from cmp_seg_ros.scenedino.voxels import Folded, Plain, Points
from cmp_seg_ros.speed.alone import run_module

IMAGE, GRID = (192, 640), "sscbench"  # (height, width) in pixels
WAYS = ("published", "plain", "engine")
OCCUPIED = 0.15  # of the voxels in the view
THRESHOLD = 0.2  # 1 / m, of the published script
PUBLISHED_CHUNK = 524_288
# Normalised intrinsics of the published demonstration, and a camera 0.8 m before its lidar, looking ahead.
INTRINSICS = ((0.7849, 0.0, -0.0312), (0.0, 2.9391, 0.2701), (0.0, 0.0, 1.0))
T_CAMERA_LIDAR = ((0.0, -1.0, 0.0, 0.0), (0.0, 0.0, -1.0, -0.1), (1.0, 0.0, 0.0, -0.8))
PATIENCE = 7200.0  # seconds for one way


def bench(turns: int = 2) -> dict[str, Any]:
    """Times and memory of the three ways, and how far their labels agree.

    Args:
        turns: of the plain way and the engine, of which the best counts; the published way is timed once.

    Raises:
        UserError: a way ended with an error.
    """
    found: dict[str, Any] = {"image": IMAGE, "grid": GRID, "threads": threads()}
    labels = {}
    with tempfile.TemporaryDirectory() as folder:
        shift = Path(folder) / "shift.json"
        for way in reversed(WAYS):  # the engine also finds the bias for all
            result = Path(folder) / f"{way}.npz"
            figures = run_module(__name__, [way, turns, shift, result], f"{way} network", PATIENCE)
            found |= {f"{way}_{name}": value for name, value in figures.items()}
            with np.load(result) as file:
                labels[way] = file["label"], file["density"]
    view = labels["engine"][0] != UNKNOWN
    plain, engine = labels["plain"], labels["engine"]
    solid = plain[0] < FREE
    both, either = (solid & (engine[0] < FREE)).sum(), (solid | (engine[0] < FREE)).sum()
    found["occupied"] = float(solid[view].mean())
    found["in_view"] = float(view.mean())
    found["label_agreement"] = float((plain[0] == engine[0])[view].mean())
    found["published_agreement"] = float((labels["published"][0] == engine[0])[view].mean())
    found["occupancy_iou"] = float(both / max(either, 1))
    error = np.abs(plain[1] - engine[1])[view]
    found["density_beyond_tolerance"] = float((error > 1e-3 * plain[1][view] + 1e-5).mean())
    return found


def points_of(grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 3) centres of the voxels in the camera's frame, and the intrinsics."""
    T = np.array(T_CAMERA_LIDAR, np.float32)
    return torch.from_numpy(grid.centres() @ T[:, :3].T + T[:, 3]), torch.tensor(INTRINSICS)


def evaluate(evaluation: Plain, image: torch.Tensor, points: Points) -> tuple[UInt8, Float32]:
    """(N,) labels, FREE where not occupied, and densities."""
    features = evaluation.look(image)
    density = evaluation.density(features, points)
    solid = np.flatnonzero(density > THRESHOLD)
    label = np.full(len(density), FREE, np.uint8)
    label[solid] = evaluation.classes(features, points, solid)
    return label, density


@torch.inference_mode()
def published(field: FeatureField, image: torch.Tensor, points: Points) -> tuple[UInt8, Float32]:
    """As the published script: every voxel through the whole chain."""
    features, labels, densities = field.encode(image), [], []
    for xyz in points.xyz.split(PUBLISHED_CHUNK, dim=1):
        found = field.query(features, xyz, points.intrinsics)
        ids = field.classes(found.features)[0]
        densities.append(found.density[0])
        labels.append(torch.where(found.density[0] > THRESHOLD, ids, FREE).to(torch.uint8))
    return torch.cat(labels).numpy(), torch.cat(densities).numpy()


def _run(way: str, turns: str, shift: str, result: str) -> dict[str, Any]:
    torch.set_num_threads(threads())
    torch.manual_seed(0)
    field = FeatureField(FieldConfig(encoder=VitConfig(), image=IMAGE)).eval().requires_grad_(False)  # ViT-B/8
    grid = Grid.load(GRID)
    image = torch.rand(1, 3, *IMAGE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    xyz, intrinsics = points_of(grid)
    view = ~Plain(field).plan(xyz, intrinsics).invalid
    if way == "engine":
        folded = Folded(field)
        points = folded.plan(xyz[torch.from_numpy(view)], intrinsics)
        _place_bias(folded, image, points, Path(shift))
        evaluation: Plain = folded
    else:
        field.mlp.lin_out.bias[0] += json.loads(Path(shift).read_text())
        evaluation = Plain(field)
        rows = np.ones(len(xyz), bool) if way == "published" else view
        points = evaluation.plan(xyz[torch.from_numpy(rows)], intrinsics)
    seconds, cpu = [], []
    for _ in range(1 if way == "published" else int(turns)):
        started, worked = time.perf_counter(), time.process_time()
        label, density = published(field, image, points) if way == "published" else evaluate(evaluation, image, points)
        seconds.append(time.perf_counter() - started)
        cpu.append(time.process_time() - worked)
    whole = np.full(grid.size, UNKNOWN, np.uint8), np.zeros(grid.size, np.float32)
    where = slice(None) if way == "published" else view
    whole[0][where], whole[1][where] = label, density
    np.savez(result, label=whole[0], density=whole[1])
    figures = {"s": min(seconds), "cpu_s": min(cpu), "rss_mb": memory.peak_mb()}
    return {name: round(value, 3) for name, value in figures.items()}


def _place_bias(evaluation: Folded, image: torch.Tensor, points: Points, file: Path) -> None:
    """Shift the density's bias so that OCCUPIED of the points are above the threshold, and note the shift."""
    density = torch.from_numpy(evaluation.density(evaluation.look(image), points)).double()
    logit = torch.log(torch.expm1(density.clamp(min=1e-12)))
    level = float(torch.log(torch.expm1(torch.tensor(THRESHOLD, dtype=torch.float64))))
    shift = level - float(np.quantile(logit.numpy(), 1 - OCCUPIED))
    evaluation.last_bias[0] += shift
    file.write_text(json.dumps(shift))


if __name__ == "__main__":
    print(json.dumps(_run(*sys.argv[1:])))
