"""`cmp-seg scenedino`: occupancy from single images."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmp_seg_ros.cli import options
from cmp_seg_ros.cli.tables import counted, percent, print_warnings, show
from cmp_seg_ros.errors import UserError

if TYPE_CHECKING:
    from cmp_seg_ros.geometry.cameras import Camera
    from cmp_seg_ros.occupancy.cases import Case
    from cmp_seg_ros.occupancy.grid import Grid
    from cmp_seg_ros.scan import UInt8

BUNDLE = "scenedino-indoor-small"
CAMERA_GRID = "indoor-camera"  # where the camera's place on the robot is unknown
HELD_OUT = 40_000_000  # first seed of buildings in no training and no validation
DRAWN = 6  # pictures of an evaluation

scenedino = typer.Typer(help="Occupancy from single images: infer, evaluate, export, bench.", no_args_is_help=True)


@scenedino.command()
def infer(
    input: Annotated[Path, typer.Argument(help="An image, a folder of images, or a bag.")],
    out: Annotated[Path, typer.Option(help="Folder for pictures, voxels (npz, PLY), depth and report.json.")],
    calibration: Annotated[
        Path | None, typer.Option(help="Calibration file, or a file of one camera; a bag may have camera info instead.")
    ] = None,
    camera: Annotated[str, typer.Option(help="Name of the camera, if the calibration has several.")] = "",
    topic: Annotated[str, typer.Option(help="Image topic, if a bag has several.")] = "",
    model: options.Occupancy = BUNDLE,
    grid: Annotated[
        str,
        typer.Option(help="A grid in config/grids/, or a file; by default indoor, or indoor-camera without a pose."),
    ] = "",
    engine: options.FieldEngine = "folded",
    max_images: Annotated[int | None, typer.Option(help="Stop after this many images.", min=1)] = None,
    as_json: options.Json = False,
) -> None:
    """Label the space that images show. Without T_base_camera in the calibration, grids stand in the camera's frame."""
    from itertools import islice
    from time import perf_counter

    import numpy as np

    from cmp_seg_ros.occupancy import files, pictures
    from cmp_seg_ros.occupancy.grid import FREE, UNKNOWN, Grid
    from cmp_seg_ros.occupancy.images import images_of, load_camera
    from cmp_seg_ros.occupier import Occupier
    from cmp_seg_ros.outputs import claim, write_report, writing

    pose = None if calibration is None else load_camera(calibration, camera)
    occupier = Occupier.from_bundle(model, engine)
    space, rows = occupier.label_space, []
    images = islice(images_of(input, pose, topic), max_images)
    claim(out, "scenedino infer", source=input)
    with writing(out):
        for key, rgb, place in images:
            chosen = Grid.load(grid or ("indoor" if place.T_base_camera is not None else CAMERA_GRID))
            started = perf_counter()
            view = occupier.look(rgb, place.camera, place.T_base_camera)
            voxels = occupier.voxels(view, chosen)
            milliseconds = 1e3 * (perf_counter() - started)
            rendered = occupier.render(view)
            files.write_npz(out / f"{key}.npz", chosen, voxels.label, voxels.density, space)
            files.write_ply(out / f"{key}.ply", chosen, voxels.label, voxels.density, space)
            files.write_depth(out / f"{key}.depth.png", rendered.depth)
            title = f"{key}: {occupier.bundle.description.name}, {chosen.voxel:g} m voxels"
            classes = space.palette[rendered.label]
            path = out / f"{key}.png"
            pictures.draw_result(path, rgb, rendered.depth, classes, chosen, voxels.label, space, title)
            of_voxels = {
                "occupied": voxels.label < FREE,
                "free": voxels.label == FREE,
                "unknown": voxels.label == UNKNOWN,
            }
            counts = {name: int(those.sum()) for name, those in of_voxels.items()}
            rows.append({"image": key, **counts, "ms": round(milliseconds, 1)})
        if not rows:
            raise UserError(f"{input} has no image that could be read")
        report: dict[str, Any] = {"command": "scenedino infer", "finished": True, "images": rows}
        report["model"] = occupier.bundle.description.name
        report["ms_median"] = float(np.median([row["ms"] for row in rows]))
        write_report(out, report)
    if as_json:
        print(json.dumps(report))
    else:
        if not grid and place.T_base_camera is None:
            unknown = f"the camera's pose is not known: the grid ({CAMERA_GRID}) stands in its frame"
            print_warnings([f"{unknown}; give T_base_camera in the calibration for one on the floor"])
        print(f"{counted(len(rows), 'image')}, {report['ms_median']:.0f} ms an image\n{out}")


@scenedino.command()
def evaluate(
    out: Annotated[Path, typer.Option(help="Folder for pictures and report.json.")],
    input: Annotated[
        Path | None,
        typer.Argument(help="Posed RGB-D frames (poses.txt), or a furnished scene (world.yaml); else new buildings."),
    ] = None,
    model: options.Occupancy = BUNDLE,
    views: Annotated[int, typer.Option(help="Views: of a scene, or of all buildings together.", min=1)] = 60,
    every: Annotated[int, typer.Option(help="Take every Nth RGB-D frame.", min=1)] = 4,
    engine: options.FieldEngine = "folded",
    as_json: options.Json = False,
) -> None:
    """Score occupancy, classes and depth against a truth, beside baselines.

    Baselines: the bundle's own depth back-projected, a wall at the median depth of the truth, and the floor with it.
    """
    from cmp_seg_ros.evaluation.occupancy import OccupancyEvaluation, median_depth
    from cmp_seg_ros.occupancy import cases, pictures
    from cmp_seg_ros.occupancy.grid import Grid
    from cmp_seg_ros.occupancy.scores import truth_ids
    from cmp_seg_ros.occupier import Occupier
    from cmp_seg_ros.outputs import claim, write_report, writing

    grid, occupier = Grid.load("indoor"), Occupier.from_bundle(model, engine)
    real = input is not None and (input / cases.POSES).is_file()
    found = list(_cases(input, views, every, grid, _network_camera(occupier)))
    claim(out, "scenedino evaluate", source=input)
    constant = median_depth([case.depth for case, _ in found])
    names = ("own", "neighbours") if real else ("own",)
    evaluations = {name: OccupancyEvaluation(occupier, grid, constant) for name in names}
    space = occupier.label_space
    ids = truth_ids(space)
    with writing(out):
        for number, (case, truth) in enumerate(found):
            view, label = evaluations["own"].add(case)
            if real:
                evaluations["neighbours"].add(case, truth)
            if number % max(1, len(found) // DRAWN) == 0:
                rendered, title = occupier.render(view), f"{case.key}: {occupier.bundle.description.name}"
                classes, path = space.palette[rendered.label], out / f"{case.key}.png"
                result = case.rgb, rendered.depth, classes, grid, label, space, title, ids[truth]
                pictures.draw_result(path, *result)
        scores = {name: evaluation.report(not real) for name, evaluation in evaluations.items()}
        report: dict[str, Any] = {"command": "scenedino evaluate", "finished": True}
        report |= {"model": occupier.bundle.description.name, "input": str(input or "new buildings")}
        report |= scores["own"] | ({"neighbours": scores["neighbours"]} if real else {})
        write_report(out, report)
    if as_json:
        print(json.dumps(report))
        return
    _print_scores(scores)
    print(out)


def _network_camera(occupier: Any) -> "Camera":
    """A camera whose images the network takes without a change."""
    from cmp_seg_ros.geometry.cameras import Camera

    size = occupier.section.network.image
    return Camera.centred(occupier.section.focal or 0.75 * size[1], size)


def _cases(
    input: Path | None, views: int, every: int, grid: "Grid", camera: "Camera"
) -> Iterable[tuple["Case", "UInt8"]]:
    """The cases and their truth."""
    from cmp_seg_ros.occupancy import cases

    if input is None:
        each = min(4, views)
        found = cases.simulated(range(HELD_OUT, HELD_OUT + -(-views // each)), each, camera, grid)
    elif (input / cases.POSES).is_file():
        return cases.rgbd(input, grid, every)
    elif (input / "world.yaml").is_file():
        found = cases.of_scene(input, views, camera, grid)
    else:
        raise UserError(f"{input} is neither a folder of posed RGB-D frames (poses.txt) nor a scene (world.yaml)")
    return ((case, case.truth) for case in found)


def _print_scores(scores: dict[str, dict[str, Any]]) -> None:
    from rich.table import Table

    for name, found in scores.items():
        title = f"{found['cases']} views" + (", truth with that of neighbours" if name == "neighbours" else "")
        table = Table("", "IoU", "visible", "occluded", "precision", "recall", "mIoU", "AbsRel", "< 1.25", title=title)
        for way in ("model", "own_depth", "constant_depth", "floor_plane"):
            row = found[way]
            keys = ("occupancy_iou", "occupancy_iou_visible", "occupancy_iou_occluded", "precision", "recall", "miou")
            cells = [percent(row[key]) if key in row else "" for key in keys]
            depth = [f"{row['abs_rel']:.3f}", percent(row["delta_125"])] if "abs_rel" in row else []
            table.add_row(way.replace("_", " "), *cells, *depth)
        show(table)


@scenedino.command()
def export(
    model: Annotated[str, typer.Argument(help="A bundle of kind occupancy: a folder, or a name in models/.")] = BUNDLE,
    out: Annotated[Path, typer.Option(help="Folder for image.onnx, density.onnx and classes.onnx.")] = Path("graphs"),
) -> None:
    """Write the network as ONNX graphs, for GPUs: image to features, then points to density, and to classes."""
    from cmp_seg_ros.occupier import Occupier
    from cmp_seg_ros.outputs import claim, writing
    from cmp_seg_ros.scenedino import graph

    field = Occupier.from_bundle(model, "reference").evaluation.field
    claim(out, "scenedino export", source=Path(model))
    with writing(out):
        for path in graph.write(field, out):
            print(f"{path}, {path.stat().st_size / 1e6:.1f} MB")


@scenedino.command()
def bench(
    turns: Annotated[int, typer.Option(help="Runs of plain network and engine; the best counts.", min=1)] = 2,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json.")] = None,
    as_json: options.Json = False,
) -> None:
    """Time the full-size network (ViT-B/8, 192 x 640, SSCBench grid, random weights): published, plain, engine."""
    from cmp_seg_ros.outputs import require_writable, write_report, writing
    from cmp_seg_ros.speed import scenedino as speed

    if out is not None:
        require_writable(out, "scenedino bench")
    report = {"command": "scenedino bench", **speed.bench(turns=turns)}
    if out is not None:
        with writing(out):
            write_report(out, report)
    if as_json:
        print(json.dumps(report))
        return
    for way in speed.WAYS:
        print(f"{way:10} {report[f'{way}_s']:8.1f} s {report[f'{way}_rss_mb']:8.0f} MB")
    print(
        f"engine: {report['published_s'] / report['engine_s']:.1f} x the published structure, "
        f"{report['plain_s'] / report['engine_s']:.1f} x the plain network; labels equal at "
        f"{report['label_agreement']:.4%}, {report['occupied']:.1%} occupied"
    )
