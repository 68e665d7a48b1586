"""Does a real 2D teacher see a building in the simulator's images?

    python benchmarks/teacher.py --scene small_house --out out/teacher [--teacher mosaic]
    python benchmarks/teacher.py --buildings 12 --out out/teacher_buildings [--views 24] [--json]
    python benchmarks/teacher.py --buildings 24 --views 96 --out out/teacher --errors config/teachers/mosaic.yaml

Renders views from random free places (those whose median depth is at least 1.5 m), lets a teacher label them, and
scores its labels against the truth of every pixel: IoU by class in structural6, and in structural4 with doors, windows
and the like ignored (primary) or counted as non-structural (strict). Leaves report.json and views.png.
With --errors, also measures how often each answer comes inside surfaces of each class, for the simulated teacher.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml

from cmp_seg_ros import outputs
from cmp_seg_ros.cli import tables
from cmp_seg_ros.cli.tables import percent, table_of
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.evaluation.metrics import Confusion, readings
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Bool, UInt8
from cmp_seg_ros.simulation.building import Building, make_building
from cmp_seg_ros.simulation.camera import Image, Renderer
from cmp_seg_ros.simulation.generate import rotation
from cmp_seg_ros.simulation.mesh import indoor
from cmp_seg_ros.simulation.people import people_mesh
from cmp_seg_ros.simulation.raycast import Scene, cast_all
from cmp_seg_ros.simulation.rig_camera import OPTICAL, load_camera
from cmp_seg_ros.simulation.scene_folder import load_scene
from cmp_seg_ros.teachers.base import open_teacher
from cmp_seg_ros.teachers.simulated import ErrorModel

STRUCTURE = ("floor", "wall", "ceiling")
MUST = 0.5
SHOWN = 6  # views in the picture
FIRST_BUILDING = 10_000_000  # beyond those that training sees
NEAREST = 1.5  # metres, median over the image
INSIDE = 8  # pixels
SIMULATED: dict[str, Any] = {"cells": 128, "blur": 1.0, "patch": 5.0, "sharpness": 1.0}  # fitted by eye
HEIGHT, PITCH = (0.7, 1.6), (-10.0, 15.0)  # metres above the floor; degrees downwards


class View(NamedTuple):
    """An image, and the true and the teacher's ids in structural6 of its pixels."""

    image: Image
    truth: UInt8
    taught: UInt8


def views(building: Building, count: int, camera_name: str) -> Iterator[Image]:
    """`count` images from free places, level but for a random pitch."""
    rng = np.random.default_rng([building.seed, 9])
    camera = load_camera(camera_name)
    renderer = Renderer(camera, building)
    scenes = [Scene(building.mesh), Scene(people_mesh(building.people, 0.0))]
    v, u = np.mgrid[0 : camera.height : 40, 0 : camera.width : 40].astype(np.float32)
    probes = camera.unproject(np.stack([u.ravel(), v.ravel()], axis=1))
    probes = probes[np.isfinite(probes).all(axis=1)]
    made = 0
    for x, y in building.free_places(rng, 20 * count, 0.5):
        T = rotation(0.0, float(np.radians(rng.uniform(*PITCH))), float(rng.uniform(-np.pi, np.pi)))
        T[:3, :3] = T[:3, :3] @ OPTICAL
        T[:3, 3] = x, y, rng.uniform(*HEIGHT)
        origins = np.tile(T[:3, 3].astype(np.float32), (len(probes), 1))
        depth = cast_all(scenes, origins, (probes @ T[:3, :3].T).astype(np.float32)).distance
        if np.median(depth) < NEAREST:
            continue
        yield renderer.render(scenes, T, rng)
        made += 1
        if made == count:
            return


def all_views(arguments: argparse.Namespace) -> Iterator[tuple[str, Image]]:
    """Where and what, for every view."""
    if arguments.scene:
        scene = load_scene(arguments.scene, arguments.seed)
        yield from ((scene.plan.kind, image) for image in views(scene, arguments.views, arguments.camera))
        return
    for number in range(arguments.buildings):
        building = make_building(FIRST_BUILDING + arguments.seed + number)
        share = arguments.views // arguments.buildings + (number < arguments.views % arguments.buildings)
        name = f"{building.seed} ({building.plan.kind})"
        yield from ((name, image) for image in views(building, share, arguments.camera))


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[View]]:
    """Render, label and score. The report, and evenly chosen views for the picture."""
    teacher = open_teacher(arguments.teacher)
    if teacher.label_space is None:
        raise UserError(f"teacher {arguments.teacher} gives no masks; take another --teacher")
    truth_space = LabelSpace.load("structural6")
    to_truth, to_taught = truth_space.id_map(indoor()), truth_space.id_map(teacher.label_space)
    confusion, places, shown, teaching, made = Confusion(truth_space), [], [], 0.0, 0
    errors = np.zeros((256, 256), np.int64)
    chosen = set(np.linspace(0, arguments.views - 1, SHOWN).round().astype(int).tolist())
    began = time.perf_counter()
    for made, (place, image) in enumerate(all_views(arguments), 1):
        rendered = time.perf_counter()
        taught = teacher.masks(image.rgb).label
        teaching += time.perf_counter() - rendered
        view = View(image, to_truth[image.label], to_taught[taught])
        confusion.add(view.truth.ravel(), view.taught.ravel())
        inside = interior(image.label)
        np.add.at(errors, (image.label[inside], taught[inside]), 1)
        places += [place] * (place not in places)
        if made - 1 in chosen:
            shown.append(view)
    seconds = time.perf_counter() - began
    if not made:
        raise UserError("no view of these places shows anything at least 1.5 m away; take another --seed")
    if arguments.errors:
        write_errors(arguments.errors, arguments.teacher, teacher.label_space, errors)
    found = {name: reading.report() for name, reading in readings(confusion).items()}
    iou = found["structural6"]["iou"]
    report = {
        "teacher": arguments.teacher,
        "camera": arguments.camera,
        "places": places,
        "views": made,
        "seed": arguments.seed,
        **found,
        "reached": {name: bool((iou[name] or 0) > MUST) for name in STRUCTURE},
        "ms_per_view": {
            "rendering": round(1000 * (seconds - teaching) / made),
            "teacher": round(1000 * teaching / made),
        },
    }
    return report, shown


def interior(truth: UInt8) -> Bool:
    """(H, W) whether all pixels within INSIDE pixels of one are of its class."""
    from scipy.ndimage import maximum_filter, minimum_filter

    size = 2 * INSIDE + 1
    alike: Bool = maximum_filter(truth, size) == minimum_filter(truth, size)
    return alike


def write_errors(path: Path, teacher: str, answers: LabelSpace, counts: npt.NDArray[np.int64]) -> None:
    """Keep the shares of the answers by true class, of (256, 256) pixels by true and answered id."""
    confusion = {}
    for name, row in [(c.name, counts[c.id]) for c in indoor().classes] + [("nothing", counts[UNLABELLED])]:
        shares = row[answers.ids] / max(1, row.sum())
        known = zip(answers.names, shares.tolist(), strict=True)
        confusion[name] = {answer: round(share, 3) for answer, share in known if share >= 0.002}
    model = ErrorModel(teacher=teacher, answers=answers.name, confusion=confusion, **SIMULATED)
    head = "# Errors of a real teacher in simulated images, for the simulated one (benchmarks/teacher.py --errors).\n"
    path.write_text(head + yaml.safe_dump(model.model_dump(), sort_keys=False, width=110))


def draw(path: Path, shown: list[View], title: str) -> None:
    """Image, truth and teacher of some views, in the colours of structural6."""
    space = LabelSpace.load("structural6")
    figure = plots.new_figure(2.6 * len(shown), 7.2, title)
    figure.subplots_adjust(left=0.03, right=0.99, bottom=0.07, top=0.92, wspace=0.03, hspace=0.03)
    axes = figure.subplots(3, len(shown), squeeze=False)
    for column, view in enumerate(shown):
        pictures = view.image.rgb, space.palette[view.truth], space.palette[view.taught]
        for row, picture in enumerate(pictures):
            axes[row, column].imshow(picture)
            axes[row, column].set(xticks=[], yticks=[])
    for row, name in enumerate(("simulated image", "truth", "teacher")):
        axes[row, 0].set_ylabel(name)
    patches = [plots.patch(c.color, c.name) for c in space.classes] + [plots.patch((0, 0, 0), "sky, nothing")]
    figure.legend(handles=patches, loc="lower center", ncols=len(patches))
    plots.save(figure, path)


def show(report: dict[str, Any]) -> None:
    """The report as a table."""
    columns = "pixels", "recall", "IoU structural6", "structural4 primary", "structural4 strict"
    table = table_of(["class"], columns, title=f"{report['views']} views, {report['teacher']}")
    six, four = report["structural6"], [report[f"structural4_{variant}"]["iou"] for variant in ("primary", "strict")]
    pixels = sum(six["points"].values())
    for name, iou in six["iou"].items():
        coarse = "non-structural" if name == "object" else name
        merged = (percent(reading[coarse]) if coarse in reading else "" for reading in four)
        table.add_row(name, percent(six["points"][name] / pixels), percent(six["recall"][name]), percent(iou), *merged)
    means = (report[key]["miou"] for key in ("structural6", "structural4_primary", "structural4_strict"))
    table.add_row("mean", "", "", *map(percent, means))
    tables.show(table)
    for name, reached in report["reached"].items():
        print(f"{name}: IoU {percent(six['iou'][name])}, must be over {MUST:.0%}: {'yes' if reached else 'NO'}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="mosaic", help="its name, or its weights (default: mosaic)")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--scene", type=Path, help="folder of a furnished scene")
    where.add_argument("--buildings", type=int, help="how many generated buildings")
    parser.add_argument("--views", type=int, default=24, help="in all (default: 24)")
    parser.add_argument("--camera", default="pinhole", help="of config/cameras, or a .yaml file")
    parser.add_argument("--seed", type=int, default=0, help="of the places, and the first building")
    parser.add_argument("--out", type=Path, required=True, help="folder for report.json and views.png")
    parser.add_argument("--errors", type=Path, help="file for how often which class is taken for which")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    arguments = parser.parse_args()
    if arguments.views < 1 or (arguments.buildings is not None and not 0 < arguments.buildings <= arguments.views):
        parser.error("--views must be at least 1, and --buildings between 1 and --views")
    return arguments


def main() -> int:
    arguments = parse()
    try:
        report, shown = run(arguments)
        with outputs.writing(arguments.out):
            outputs.write_report(arguments.out, report)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    where = report["places"][0] if arguments.scene else f"{arguments.buildings} generated buildings"
    draw(arguments.out / "views.png", shown, f"{arguments.teacher} in {where}, classes of structural6")
    if arguments.json:
        print(json.dumps(report))
    else:
        show(report)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
