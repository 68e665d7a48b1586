"""How good are pseudo-labels, and what does each refinement bring?

    python benchmarks/pseudo_labels.py truth --scenes SCENES --cache CACHE --out out/pseudo_labels [--row buildings]
    python benchmarks/pseudo_labels.py real --pairs REAL --cache CACHE --out out/pseudo_labels [--set plycal]

`truth` drives through simulated buildings and third-party scenes, lets a teacher label the rendered images, and
compares the labels of the points that the camera sees with the truth. `real` checks labels of real pairs against the
floor, ceiling and walls that geometry alone finds. What the teacher said is kept in CACHE, and the next run goes on
there. What is measured is fixed in config/pseudo_labels/study-v1.yaml.
"""

import argparse
import io
import json
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml

from cmp_seg_ros import resources
from cmp_seg_ros.datasets import drives, open_input
from cmp_seg_ros.datasets.frame import TRUTH, Frame
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.evaluation.bootstrap import Bootstrap
from cmp_seg_ros.evaluation.metrics import Confusion, Merge, iou_of, mean_of, number
from cmp_seg_ros.geometry.planes import Planes, find_planes
from cmp_seg_ros.geometry.projection import upright
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.mapping.fusion import VoxelMap
from cmp_seg_ros.outputs import write_whole
from cmp_seg_ros.pseudo_labels import refine
from cmp_seg_ros.pseudo_labels.copies import consensus
from cmp_seg_ros.pseudo_labels.labeller import Refinements, project, read
from cmp_seg_ros.pseudo_labels.surfaces import surfaces, with_geometry
from cmp_seg_ros.scan import UNLABELLED, Bool, Float32, Labels, UInt8
from cmp_seg_ros.teachers.base import Teacher, open_teacher

Float64 = npt.NDArray[np.float64]
STUDY: dict[str, Any] = yaml.safe_load(resources.resource("config/pseudo_labels/study-v1.yaml").read_text())
BOOTSTRAP = Bootstrap(**STUDY["bootstrap"])
SPACE, FOUR = LabelSpace.load(STUDY["label_space"]), LabelSpace.load("structural4")
VARIANT = "" if STUDY["variant"] == "hand" else STUDY["variant"]
COVERAGES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
RAW, ALL, STILL, BALANCED = "raw, rejected by confidence", "all", "all but time", "class balance"
ONCE = "all but agreement"


class Seen(NamedTuple):
    """The M points of a drive that its camera sees, and what is known of them."""

    scan: npt.NDArray[np.int32]  # (M,) index of the scan
    truth: UInt8  # (M,) in the label space
    raw: Float32  # (M, C) probabilities by the image itself
    mean: Float32  # (M, C) by its augmented copies
    agreement: Float32  # (M,) of the copies
    border: Bool  # (M,) near the border of a mask
    edge: Bool  # (M,) near an edge in depth
    surface: UInt8  # (M,) that the point lies on
    world: Float64  # (M, 3)
    range: Float32  # (M,) metres
    near: npt.NDArray[np.int8]  # (M, 3) whether near to the floor, the ceiling, a wall; -1: there is none


def see(frame: Frame, index: int, teacher: Teacher) -> Seen:
    """Ask the teacher about the only image of a frame; without a truth no point has one."""
    assert teacher.label_space is not None
    planes = find_planes(upright(frame.scan.xyz, frame.T_base_lidar))
    [(name, image)] = frame.images.items()
    rgb = read(frame, name, image)
    projection = project(frame, image)
    rows = np.flatnonzero(projection.visible)
    uv, width = projection.uv[rows], rgb.shape[1]
    merge = SPACE.merge_matrix(teacher.label_space, VARIANT)
    said = consensus(teacher, rgb, uv, merge, augmented=True)
    mask = SPACE.id_map(teacher.label_space, VARIANT)[said.masks.label]
    default, T = Refinements(), np.eye(4) if frame.T_world_lidar is None else frame.T_world_lidar
    truth = frame.labels.get(TRUTH)
    xyz = frame.scan.xyz[rows]
    return Seen(
        np.full(len(rows), index, np.int32),
        np.full(len(rows), UNLABELLED, np.uint8) if truth is None else SPACE.id_map(truth.space)[truth.label[rows]],
        said.single,
        said.probabilities,
        said.agreement,
        refine.near_border(mask, uv, default.borders * width),
        projection.edge[rows],
        surfaces(planes)[rows],
        xyz @ T[:3, :3].T + T[:3, 3],
        np.linalg.norm(xyz, axis=1),
        np.stack([_near(planes, surface, must["within"])[rows] for surface, must in STUDY["musts"].items()], axis=1),
    )


def _near(planes: Planes, surface: str, within: float) -> npt.NDArray[np.int8]:
    """(N,) 1 for points within metres of the floor, the ceiling or a wall, else 0; -1 where there is no such plane."""
    known = {"floor": planes.floor, "ceiling": planes.ceiling, "wall": planes.walls}[surface]
    if not known:
        return np.full(len(planes.xyz), -1, np.int8)
    return np.any([plane.near(planes.xyz, within) for plane in known], axis=0).astype(np.int8)


def ask(frames: Iterable[Frame], teacher: Teacher, path: Path) -> Seen:
    """What the teacher says of some frames, kept in the cache at `path`."""
    if not path.is_file():
        parts = [see(frame, index, teacher) for index, frame in enumerate(frames)]
        arrays = dict(zip(Seen._fields, map(np.concatenate, zip(*parts, strict=True)), strict=True))
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.getbuffer())
        print(f"{path.name}: {len(arrays['truth']):,} points", file=sys.stderr, flush=True)
    with np.load(path) as file:
        return Seen(*(file[name] for name in Seen._fields))


def collect(row: str, scenes: Path | None, cache: Path) -> Iterator[Seen]:
    """The drives of a row, from the cache where they are in it. Raises UserError."""
    about, scene = STUDY["rows"][row], None
    if "scene" in about:
        if scenes is None:
            raise UserError(f"row {row} needs the folder of third-party scenes; give --scenes")
        scene = scenes / about["scene"]
    seeds, cameras = range(about["first"], about["first"] + about["count"]), [STUDY["camera"]]
    teacher = open_teacher(STUDY["teacher"])
    for drive in drives.DataSet(seeds, STUDY["scans"], sensor=STUDY["sensor"], cameras=cameras, scene=scene).parts():
        yield ask(drive, teacher, cache / f"{STUDY['name']}-{row}-{next(iter(drive.seeds))}.npz")


class Method(NamedTuple):
    """A way to label the points that are seen.

    label: (M,) ids. score: (M,) what is rejected first has the lowest.
    """

    label: UInt8
    score: Float32


def methods(seen: Seen) -> dict[str, Method]:
    """Raw labels, each refinement alone, and all together; every one labels each point, and says how sure it is."""

    def decided(probabilities: Float32, rejected: Bool | None = None) -> Method:
        label, confidence = refine.decide(probabilities, SPACE.ids)
        return Method(label, confidence if rejected is None else confidence - rejected)

    def over_time(probabilities: Float32, rejected: Bool) -> Method:
        method = decided(probabilities)
        votes = VoxelMap(SPACE, independent=1)
        for index in np.unique(seen.scan):
            kept = (seen.scan == index) & ~rejected
            voted = Labels(method.label[kept], method.score[kept], probabilities=probabilities[kept])
            votes.add(seen.world[kept], voted, seen.range[kept])
        label, _ = votes.labels_at(seen.world)
        outvoted = (label != UNLABELLED) & (label != method.label)
        return Method(method.label, method.score - rejected - outvoted)

    geometry = with_geometry(seen.raw, seen.surface, SPACE)
    unsure = seen.agreement < Refinements().agreement
    everything = with_geometry(seen.mean, seen.surface, SPACE)
    rejected = unsure | seen.border | seen.edge
    return {
        RAW: decided(seen.raw),
        "agreement of copies": decided(seen.mean, unsure),
        "borders": decided(seen.raw, seen.border),
        "depth edges": decided(seen.raw, seen.edge),
        "geometry": decided(geometry),
        "time": over_time(seen.raw, np.zeros(len(seen.truth), np.bool_)),
        BALANCED: decided(seen.raw),
        STILL: decided(everything, rejected),
        ONCE: over_time(geometry, seen.border | seen.edge),
        ALL: over_time(everything, rejected),
    }


def compare(drives_seen: list[Seen]) -> dict[str, Any]:
    """What each method gains at the study's coverage, with intervals by drive, and by coverage for the picture."""
    readings = {
        SPACE.name: Merge.into(SPACE, "", SPACE, SPACE),
        "structural4_primary": Merge.into(FOUR, "primary", SPACE, SPACE),
    }
    found = [methods(seen) for seen in drives_seen]

    def matrices(name: str, kept_by: str, coverage: float) -> npt.NDArray[np.int64]:
        """(G, C, C + 1) of each drive: labels of one method on the points that another keeps at a coverage."""
        score = np.concatenate([ways[kept_by].score for ways in found])
        if kept_by in (BALANCED, STILL, ONCE, ALL):
            score = refine.rank_in_class(np.concatenate([ways[kept_by].label for ways in found]), score)
        scores = np.split(score, np.cumsum([len(seen.truth) for seen in drives_seen])[:-1])
        threshold = np.quantile(score, 1 - coverage) if coverage < 1 else -np.inf
        counts = [
            Confusion(SPACE).count(seen.truth, ways[name].label, np.where(score >= threshold, 0, -1), 1)[0]
            for seen, ways, score in zip(drives_seen, found, scores, strict=True)
        ]
        return np.stack(counts)

    report: dict[str, Any] = {"drives": len(found), "points": sum(len(seen.truth) for seen in drives_seen)}
    for reading, merge in readings.items():
        alone = matrices(RAW, RAW, STUDY["coverage"])
        rows: dict[str, Any] = {"raw, all points": {"miou": _figure(merge, matrices(RAW, RAW, 1.0))}}
        for name in found[0]:
            own, same = matrices(name, name, STUDY["coverage"]), matrices(RAW, name, STUDY["coverage"])
            rows[name] = {
                "miou": _figure(merge, own),
                "over_raw": _figure(merge, own, same),
                "over_confidence": _figure(merge, own, alone),
                "iou": dict(zip(merge.space.names, map(number, iou_of(merge(own.sum(axis=0)))), strict=True)),
            }
        curves = {
            name: [number(float(_miou(merge, matrices(name, name, coverage).sum(axis=0)))) for coverage in COVERAGES]
            for name in (RAW, STILL, ONCE, ALL)
        }
        report[reading] = {"methods": rows, "by_coverage": {"coverage": COVERAGES, **curves}}
    return report


def _miou(merge: Merge, counts: npt.NDArray[Any]) -> Float64:
    """(..., C, C + 1) -> (...) mean IoU in the merge's space."""
    return mean_of(iou_of(merge(counts)))


def _figure(merge: Merge, counts: npt.NDArray[np.int64], before: npt.NDArray[np.int64] | None = None) -> dict[str, Any]:
    """The mean IoU over (G, C, C + 1) counts of drives, or what it gains over others, and its interval over draws."""
    miou = partial(_miou, merge)
    value, drawn = miou(counts.sum(axis=0)), BOOTSTRAP.draw(counts, miou)
    if before is not None:
        value, drawn = value - miou(before.sum(axis=0)), BOOTSTRAP.difference(before, counts, miou, paired=True)
    return {"value": float(value), "interval": BOOTSTRAP.interval(drawn)}


def real_methods(seen: Seen) -> dict[str, UInt8]:
    """(M,) labels of a real pair in each way; pairs are of one moment each, so that nothing agrees over time."""
    default = Refinements()
    rejected = seen.border | seen.edge | (seen.agreement < default.agreement)

    def confident(probabilities: Float32, keep: float = 1.0) -> UInt8:
        label, confidence = refine.decide(probabilities, SPACE.ids)
        label = np.where(rejected | (confidence < default.confidence), UNLABELLED, label).astype(np.uint8)
        return np.where(refine.rank_in_class(label, confidence) < 1 - keep, UNLABELLED, label).astype(np.uint8)

    weighed = with_geometry(seen.mean, seen.surface, SPACE)
    return {
        "raw": refine.decide(seen.raw, SPACE.ids)[0],
        "refined, without geometry": confident(seen.mean),
        "refined": confident(weighed),
        "refined, the likeliest 80 %": confident(weighed, default.keep),
    }


def run_real(arguments: argparse.Namespace) -> dict[str, Any]:
    """Labels of real pairs against planes, by set and way."""
    teacher = open_teacher(STUDY["teacher"])
    report: dict[str, Any] = {}
    for name in arguments.set or STUDY["real"]:
        found = []
        for frame in open_input(arguments.pairs / name):
            path = arguments.cache / f"{STUDY['name']}-{name}-{frame.key}.npz"
            found.append(ask([frame], teacher, path))
        if arguments.collect:
            continue
        ways: dict[str, Any] = {}
        labels = [real_methods(seen) for seen in found]
        near = np.concatenate([seen.near for seen in found])  # (M, 3)
        for way in labels[0]:
            label = np.concatenate([each[way] for each in labels])
            ways[way] = {"coverage": float((label != UNLABELLED).mean())}
            for column, surface in enumerate(STUDY["musts"]):
                named = (label == SPACE.ids[SPACE.names.index(surface)]) & (near[:, column] >= 0)
                share = near[named, column].mean() if named.any() else np.nan
                ways[way][surface] = {"points": int(named.sum()), "share": number(float(share))}
        pairs = [(seen.near >= 0).all(axis=0) for seen in found]  # (3,) whether there is such a plane
        with_plane = dict(zip(STUDY["musts"], np.sum(pairs, axis=0).tolist(), strict=True))
        report[name] = {"pairs": len(found), "with_plane": with_plane, "ways": ways}
        print_real(name, report[name])
    return report


def print_real(name: str, report: dict[str, Any]) -> None:
    """A set's rows of the table for the docs."""
    print(f"| {name}: {report['pairs']} pairs | coverage | " + " | ".join(STUDY["musts"]) + " |")
    print("|---" * (2 + len(STUDY["musts"])) + "|")
    for way, figures in report["ways"].items():
        cells = []
        for surface, must in STUDY["musts"].items():
            share, points = figures[surface]["share"], figures[surface]["points"]
            verdict = "" if share is None or share >= must["share"] else " (missed)"
            cells.append("-" if share is None else f"{share:.1%} of {points:,}{verdict}")
        print(f"| {way} | {figures['coverage']:.0%} | {' | '.join(cells)} |")


def print_truth(row: str, report: dict[str, Any]) -> None:
    """The methods as a table for the docs."""
    print(f"{row}: {report['drives']} drives, {report['points']:,} points seen")
    for reading in ("structural6", "structural4_primary"):
        print(f"| {reading} | mIoU | over raw, same points | over confidence alone |\n|---|---|---|---|")
        for name, figures in report[reading]["methods"].items():
            gains = [_signed(figures[key]) if key in figures else "" for key in ("over_raw", "over_confidence")]
            print(f"| {name} | {100 * figures['miou']['value']:.1f} | {gains[0]} | {gains[1]} |")
        found = report[reading]["methods"][ALL]
        for key, aim in STUDY["aims"].items():
            print(f"{key} {100 * aim:+.0f}: {'reached' if found[key]['value'] >= aim else 'missed'}")


def _signed(figure: dict[str, Any]) -> str:
    interval = figure["interval"]
    between = "" if interval is None else f" ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})"
    return f"{100 * figure['value']:+.1f}{between}"


def draw_truth(path: Path, rows: dict[str, Any]) -> None:
    """Mean IoU by coverage, of each row."""
    figure = plots.new_figure(5.5 * len(rows), 4.6, "Pseudo-labels of the points that a camera sees, best points first")
    for axes, (row, report) in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows.items(), strict=True):
        curves = report["structural6"]["by_coverage"]
        for name in (RAW, STILL, ONCE, ALL):
            axes.plot(curves["coverage"], curves[name], marker=".", label=name)
        axes.set(title=row, xlabel="coverage: share of these points that keep a label", ylabel="mIoU, structural6")
        axes.grid(color="#e8e8e8")
        axes.legend(fontsize=9)
    figure.subplots_adjust(top=0.83, bottom=0.14, left=0.06, right=0.98)
    plots.save(figure, path)


def run_truth(arguments: argparse.Namespace) -> dict[str, Any]:
    """The rows that are asked for, or all."""
    report = {}
    for row in arguments.row or STUDY["rows"]:
        drives_seen = list(collect(row, arguments.scenes, arguments.cache))
        if arguments.collect:
            continue
        report[row] = compare(drives_seen)
        print_truth(row, report[row])
    if report:
        draw_truth(arguments.out / "pseudo-labels.png", report)
    return report


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    truth = commands.add_parser("truth", help="against the truth of simulated images")
    truth.add_argument("--scenes", type=Path, help="folder of the third-party scenes")
    truth.add_argument("--row", action="append", help="of the study; by default all")
    real = commands.add_parser("real", help="against planes of real pairs")
    real.add_argument("--pairs", type=Path, required=True, help="folder of the sets of real pairs")
    real.add_argument("--set", action="append", help="of the study; by default all")
    for command in (truth, real):
        command.add_argument("--cache", type=Path, required=True, help="folder for what was rendered and asked")
        command.add_argument("--collect", action="store_true", help="only fill the cache")
        command.add_argument("--out", type=Path, required=True, help="folder for reports and pictures")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        report = (run_truth if arguments.command == "truth" else run_real)(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write_whole(arguments.out / f"{arguments.command}.json", (json.dumps(report, indent=2) + "\n").encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
