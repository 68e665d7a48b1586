"""Engines against bare matrix products and the plain network, and a scan's way through all stages.

    python benchmarks/bench_engine.py                     # both tables
    python benchmarks/bench_engine.py --widths 128 --voxels 5000 --skip-scans
    python benchmarks/bench_engine.py --clock cpu         # on a busy machine: one thread, its own processor time

Rivals take turns, so that what disturbs one disturbs all; medians are shown (with `--clock cpu` minima). Weights are
random: labels of an untrained network are decided by little, so agreement is lower than a trained one's.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

if "cpu" in sys.argv:  # before a library starts its threads
    os.environ["OMP_NUM_THREADS"] = "1"

import torch

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine import cpu, reference
from cmp_seg_ros.engine.base import Engine
from cmp_seg_ros.kernels.launch import threads
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.ros.point_cloud2 import decode, encode, encode_labelled
from cmp_seg_ros.scan import Scan
from cmp_seg_ros.segmenter import Segmenter, softmax
from cmp_seg_ros.simulation.building import make_building
from cmp_seg_ros.simulation.lidar import Lidar, Noise, fixed_pose, sweep
from cmp_seg_ros.simulation.raycast import Scene
from cmp_seg_ros.waffleiron import network, weights
from cmp_seg_ros.waffleiron.config import NetworkConfig, PreprocessConfig
from cmp_seg_ros.waffleiron.preprocess import Voxels, prepare

PREPROCESS = PreprocessConfig(fov_min=(-32, -32, -4), fov_max=(32, 32, 8), grids=[(128, 128), (128, 24), (128, 24)])
DEPTH = 24
Timed = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--voxels", type=int, nargs="+", default=[2000, 5000, 8000, 16000, 32000, 64000])
    parser.add_argument("--dense-up-to", type=int, default=16000, help="voxels up to which the plain network runs")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--skip-scans", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(threads())
    torch.set_grad_enabled(False)
    machine = {"processor": _processor(), "threads": threads(), "torch": torch.__version__, "clock": args.clock}
    print(machine)
    report: dict[str, Any] = {"machine": machine, "rows": [], "scans": []}
    with tempfile.TemporaryDirectory() as folder:
        bundles = {width: make_bundle(Path(folder) / str(width), width) for width in args.widths}
        dense_scan = simulated("os0-128", seed=7)
        for bundle in bundles.values():
            for count in args.voxels:
                report["rows"] += networks(bundle, voxels_of(dense_scan, count), args)
        for width, bundle in bundles.items() if not args.skip_scans else ():
            for sensor, seed in (("os1-16", 11), ("os1-16", 9), ("os0-128", 11), ("os0-128", 9)):
                report["scans"].append(
                    {"width": width, "sensor": sensor} | stages(bundle, simulated(sensor, seed), args)
                )
                print(report["scans"][-1])
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))


def networks(bundle: Bundle, voxels: Voxels, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the table: the CPU engine in each precision, beside bare products of the same and the plain network."""
    width, rows = bundle.description.network.width, []
    truth: Any = None
    for precision in cpu.precisions():
        engine: Engine = cpu.CpuEngine(bundle, precision)
        rivals: dict[str, Timed] = {"network": lambda: engine(voxels)}  # noqa: B023
        rivals |= {f"matmul {name}": run for name, run in products(width, len(voxels), precision).items()}
        if precision == "fp32" and len(voxels) <= args.dense_up_to:
            plain = reference.load(bundle)
            rivals["dense"] = lambda: plain(voxels)  # noqa: B023
        took = race(rivals, args)
        truth = reference.load(bundle)(voxels) if truth is None else truth
        answer = engine(voxels)
        matmul = min(value for name, value in took.items() if name.startswith("matmul"))
        rows.append(
            {
                "engine": engine.name,
                "precision": engine.precision,
                "width": width,
                "voxels": len(voxels),
                "network_ms": took["network"],
                "matmul_ms": matmul,
                "dense_ms": took.get("dense"),
                "agreement": float((answer.argmax(1) == truth.argmax(1)).mean()),
                "probability_difference": float(np.abs(softmax(answer) - softmax(truth)).mean()),
                "products": {name[7:]: value for name, value in took.items() if name.startswith("matmul")},
            }
        )
        print({key: _rounded(value) for key, value in rows[-1].items()}, f"ratio {took['network'] / matmul:.2f}")
    return rows


def products(width: int, voxels: int, precision: str) -> dict[str, Timed]:
    """The network's bare products by library: 2 DEPTH of N x F x F, one of 16 N x F x F, one of N x 2F x F.

    For int8 they are those in bfloat16, the lowest precision that a library has without calibration.
    """
    kind = torch.float32 if precision == "fp32" else torch.bfloat16
    sizes = [(voxels, width)] * (2 * DEPTH) + [(16 * voxels, width), (voxels, 2 * width)]
    inputs = {size: torch.randn(size).to(kind) for size in set(sizes)}
    matrices = [torch.randn(width, inner).to(kind) for _, inner in sizes]

    def with_torch() -> None:
        for size, matrix in zip(sizes, matrices, strict=True):
            torch.nn.functional.linear(inputs[size], matrix)

    libraries: dict[str, Timed] = {"torch": with_torch}
    try:
        libraries["openvino"] = _openvino(sizes, precision)
    except ImportError:
        print("openvino is not installed: its products are not in the comparison")
    return libraries


def _openvino(sizes: list[tuple[int, int]], precision: str) -> Timed:
    import openvino
    from openvino import opset13 as op

    width = sizes[0][1]
    rng = np.random.default_rng(0)
    requests = []
    for rows, inner in sorted(set(sizes)):
        first = op.parameter([rows, inner], np.float32)
        last: Any = first
        for _ in range(sizes.count((rows, inner))):
            matrix = op.constant(rng.normal(size=(width, inner)).astype(np.float32) / width**0.5)
            last = op.matmul(last, matrix, False, True)
        options = {
            "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
            "INFERENCE_NUM_THREADS": threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = openvino.Core().compile_model(openvino.Model([last], [first]), "CPU", options)
        requests.append((compiled.create_infer_request(), rng.normal(size=(rows, inner)).astype(np.float32)))

    def run() -> None:
        for request, values in requests:
            request.infer([values], share_inputs=True, share_outputs=True)

    return run


def stages(bundle: Bundle, scan: Scan, args: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of a scan's way from message to message."""
    message = _message(scan)
    segmenter = Segmenter(bundle, engine="cpu", intensity_mean=0.0, intensity_std=1.0)
    now = _clock(args)
    took: list[dict[str, float]] = []
    for _ in range(args.turns + 1):
        start = now()
        decoded = decode(message)
        arrived = now()
        labels = segmenter(decoded)
        labelled = now()
        encode_labelled(message, labels, segmenter.label_space)
        done = now()
        took.append(
            {"decode": 1e3 * (arrived - start), "label": 1e3 * (labelled - arrived), "encode": 1e3 * (done - labelled)}
            | (labels.stages_ms if args.clock == "wall" else {})
            | {"total": 1e3 * (done - start)}
        )
    middle = {name: _typical([turn[name] for turn in took[1:]], args) for name in took[0]}
    return {"points": len(scan), "voxels": labels.voxels} | {name: _rounded(value) for name, value in middle.items()}


def race(rivals: dict[str, Timed], args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of each rival; they take turns."""
    now = _clock(args)
    took: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(args.turns + 1):
        for name, run in rivals.items():
            start = now()
            run()
            if turn:
                took[name].append(1e3 * (now() - start))
    return {name: _typical(values, args) for name, values in took.items()}


def make_bundle(path: Path, width: int) -> Bundle:
    """An untrained network whose statistics and scales are those of a trained one in kind."""
    torch.manual_seed(0)
    config = NetworkConfig(width=width, depth=DEPTH, outputs=6)
    net = network.Segmenter(config)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, network.LayerScale):
            module.weight.mul_(0.2)
    return Bundle.write(
        path,
        weights.serialise(net),
        name=f"bench-{width}",
        network=config,
        preprocess=PREPROCESS,
        label_space=LabelSpace.load("structural6"),
    )


def simulated(sensor: str, seed: int) -> Scan:
    """A scan 0.8 m above the floor of a simulated building."""
    rng = np.random.default_rng(seed)
    building = make_building(seed)
    T_world_lidar = np.eye(4)
    T_world_lidar[:2, 3], T_world_lidar[2, 3] = building.free_places(rng, 1)[0], 0.8
    pose = fixed_pose(T_world_lidar)
    return sweep(Lidar.load(sensor), [Scene(building.mesh)], pose, rng, Noise.random(rng)).scan


def voxels_of(scan: Scan, count: int) -> Voxels:
    """The `count` voxels nearest to the sensor, in the coarsest of a few voxel sizes that gives so many."""
    valid = scan.valid()
    xyz, intensity = scan.xyz[valid], np.zeros(int(valid.sum()), np.float32)
    for size in (0.2, 0.14, 0.1, 0.07, 0.05, 0.035, 0.025, 0.015):
        preprocess = PREPROCESS.model_copy(update={"voxel_size": size})
        voxels = prepare(xyz, intensity, preprocess)[0]
        if len(voxels) >= count:
            near = voxels.points[np.argsort(np.linalg.norm(voxels.xyz, axis=1), kind="stable")[:count]]
            return prepare(xyz[near], intensity[near], PREPROCESS.model_copy(update={"voxel_size": 1e-3}))[0]
    raise SystemExit(f"the scan has no {count} voxels")


def _message(scan: Scan) -> Any:
    """The scan as an Ouster driver sends it, 48 bytes a point."""
    intensity = scan.intensity if scan.intensity is not None else np.zeros(len(scan), np.float32)
    fields = {"x": scan.xyz[:, 0], "y": scan.xyz[:, 1], "z": scan.xyz[:, 2], "intensity": intensity}
    cloud = encode(fields, scan.shape, {"x": 0, "y": 4, "z": 8, "intensity": 16}, 48)
    header = SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0), frame_id="lidar")
    return SimpleNamespace(header=header, **vars(cloud))


def _clock(args: argparse.Namespace) -> Callable[[], float]:
    return time.process_time if args.clock == "cpu" else time.perf_counter


def _typical(values: list[float], args: argparse.Namespace) -> float:
    return min(values) if args.clock == "cpu" else float(np.median(values))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, 4 if value < 1 else 1) if isinstance(value, float) else value


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
