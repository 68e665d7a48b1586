"""Does a bundle's unlikeness tell strange scans from indoor ones? AUROC for every kind of strange scan.

python benchmarks/strange_scans.py --model waffleiron24-128 --out out/strange [--data DIR] [--rooms 6]

Indoor scans are of generated buildings, box rooms, and third-party scenes in DIR/scenes where they are there; none is
of a training. Strange are the same in other units, with other axes, or with a cover before the sensor, and outdoor
scans of datasets/boxes.py.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.stats import mannwhitneyu

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.datasets import boxes, buildings
from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.intensity import IntensityScale
from cmp_seg_ros.scan import Float32, Scan
from cmp_seg_ros.segmenter import Segmenter

FIRST = 70_000_000  # seed, in no training and no suite
LIDARS, RINGS = ("os1-16", "xt-32"), ("rings-16", "rings-32", "rings-64")


def indoor(rooms: int, data: Path | None) -> dict[str, list[DataSet]]:
    """Data sets of indoor scans by their kind."""
    seeds = range(FIRST, FIRST + rooms)
    found: dict[str, list[DataSet]] = {
        "generated buildings": [buildings.DataSet(seeds, 1, lidar, thinned=False) for lidar in LIDARS]
    }
    for kind in ("plain", "things", "hall"):
        found[f"box rooms, {kind}"] = [
            boxes.DataSet(seeds, 1, rings, kind) for rings in RINGS[:: 1 + (kind != "plain")]
        ]
    for folder in sorted((data / "scenes").iterdir()) if data else []:
        found[folder.name] = [buildings.DataSet(seeds, 1, lidar, thinned=False, scene=folder) for lidar in LIDARS]
    return found


def strange(xyz: Float32, rng: np.random.Generator) -> Iterator[tuple[str, Float32]]:
    """Upright points of an indoor scan, spoilt in every way."""
    yield "millimetres for metres", 1000 * xyz
    yield "ten times too large", 10 * xyz
    yield "x and z exchanged", xyz[:, [2, 1, 0]]
    yield "axes of a camera", np.stack([-xyz[:, 1], -xyz[:, 2], xyz[:, 0]], axis=1)
    away = np.linalg.norm(xyz, axis=1, keepdims=True)
    near = xyz / away.clip(1e-6) * rng.uniform(0.05, 0.25, (len(xyz), 1))
    covered = (rng.random((len(xyz), 1)) < 0.9) & (away > 0.3)
    yield "covered sensor", np.where(covered, near, xyz).astype(np.float32)


def auroc(usual: list[float], odd: list[float]) -> float:
    """Probability that a strange scan has the higher unlikeness of the two."""
    return float(mannwhitneyu(odd, usual).statistic / (len(odd) * len(usual)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="waffleiron24-128")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rooms", type=int, default=6)
    options = parser.parse_args()
    bundle = Bundle.find(options.model)
    if bundle.description.familiarity is None:
        raise UserError(f"bundle {bundle.path} has no familiarity; see docs/training.md, calibrate")
    threshold, segmenter = bundle.description.familiarity.threshold, Segmenter(bundle)

    def unlikeness(xyz: Float32, intensity: Float32 | None) -> float:
        segmenter.intensity = IntensityScale(bundle.points.intensity)
        found = segmenter(Scan(xyz, intensity)).unlikeness
        assert found is not None
        return found

    usual: dict[str, list[float]] = {}
    odd: dict[str, list[float]] = {}
    rng = np.random.default_rng(0)
    for kind, sets in indoor(options.rooms, options.data).items():
        for frame in (frame for data in sets for frame in data):
            assert frame.T_base_lidar is not None
            upright = frame.scan.xyz @ frame.T_base_lidar[:3, :3].T.astype(np.float32)
            usual.setdefault(kind, []).append(unlikeness(upright, frame.scan.intensity))
            if kind in ("generated buildings", "box rooms, plain"):
                for name, xyz in strange(upright, rng):
                    odd.setdefault(name, []).append(unlikeness(xyz, frame.scan.intensity))
    for rings in RINGS:
        for frame in boxes.DataSet(range(FIRST, FIRST + 2 * options.rooms), 1, rings, "outdoor"):
            odd.setdefault("outdoors", []).append(unlikeness(frame.scan.xyz, frame.scan.intensity))

    everyone = [value for values in usual.values() for value in values]
    report = {
        "model": bundle.description.name,
        "bundle": bundle.hash,
        "threshold": threshold,
        "indoor": {kind: _row(values, threshold) for kind, values in usual.items()},
        "strange": {kind: _row(values, threshold) | {"auroc": auroc(everyone, values)} for kind, values in odd.items()},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "report.json").write_text(json.dumps(report, indent=1))
    print(f"{'':24}{'scans':>7}{'median':>10}{'flagged':>9}{'AUROC':>8}    threshold {threshold:g}")
    for kind, row in (report["indoor"] | report["strange"]).items():
        last = f"{row['auroc']:8.3f}" if "auroc" in row else ""
        print(f"{kind:24}{row['scans']:7}{row['median']:10.2f}{row['flagged']:9.1%}{last}")


def _row(values: list[float], threshold: float) -> dict[str, float]:
    finite = np.nan_to_num(values, posinf=1e12)
    return {"scans": len(values), "median": float(np.median(finite)), "flagged": float(np.mean(finite > threshold))}


if __name__ == "__main__":
    main()
