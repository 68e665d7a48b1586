"""Pictures of labelled scans for the README: real ones, and a simulated building beside its truth.

    make gallery        or: python benchmarks/gallery.py --data DIR --out docs

Real scans belong to others and are not part of this project (docs/recordings.md names their sources); pictures of those
that are not in DIR are left out.
"""

import io
import tempfile
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from PIL import Image

from cmp_seg_ros.bundle import DEFAULT_BUNDLE
from cmp_seg_ros.cli.demo import simulate
from cmp_seg_ros.datasets import open_input
from cmp_seg_ros.datasets.frame import TRUTH
from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.evaluation.labelling import image_to_draw
from cmp_seg_ros.evaluation.pipeline import Model
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.outputs import write_whole

LARGEST = 300_000  # bytes of a picture
COLOURS = (256, 128, 64)  # of its palette, until it is small enough
SHRINK = 0.85  # then its size
SEED, SENSOR, SECONDS = 3, "os1-64", 2.0  # of the simulated building, which no training uses
DATA = "CMP_SEG_SHARED_DATA"


class Shown(NamedTuple):
    """A picture: its name, the input below DIR, the number of the scan in it, and a title with the source."""

    name: str
    path: str
    number: int
    title: str


REAL = (
    Shown("lobby", "real/plycal", 0, "RoboSense 16 rings, office lobby (ram-lab/plycal)"),
    Shown("laboratory", "real/acfr_vlp16", 0, "Velodyne VLP-16, laboratory (acfr/cam_lidar_calibration)"),
    Shown("garage", "real/acfr_ouster64", 0, "Ouster OS1-64, garage (acfr/cam_lidar_calibration)"),
    Shown("room", "real/nebula_xt32/scan.pcd", 0, "Hesai XT-32, room (tier4/nebula)"),
)


def gallery(
    out: Annotated[Path, typer.Option(help="Folder for gallery-*.png.")] = Path("docs"),
    data: Annotated[Path | None, typer.Option(envvar=DATA, help="Folder of the real scans.")] = None,
    model: Annotated[str, typer.Option(help="A bundle: a folder, or a name in models/.")] = DEFAULT_BUNDLE,
) -> None:
    """Write docs/gallery-*.png."""
    labeller = Model(model)
    space = labeller.label_space
    name = labeller.segmenter.bundle.description.name
    for shown in REAL:
        if data is None or not (data / shown.path).exists():
            typer.echo(f"left out: {shown.title}; it needs --data DIR with {shown.path}")
            continue
        source = open_input(data / shown.path, sensors=SensorSet.around(data / shown.path))
        frame = source[shown.number]
        image, camera = image_to_draw(frame, source)
        path, labels, T = out / f"gallery-{shown.name}.png", labeller(frame), frame.T_base_lidar
        plots.overview(path, frame.scan, labels, space, image, camera, T, f"{shown.title}; {name}")
        shrink(path, space)
    with tempfile.TemporaryDirectory() as folder:
        drive = Path(folder) / "drive"
        simulate(drive, "--seconds", SECONDS, "--seed", SEED, "--sensor", SENSOR, "--no-camera")
        frame = open_input(drive, sensors=SensorSet.around(drive))[0]
        path, labels, truth = out / "gallery-building.png", labeller(frame), frame.labels[TRUTH].label
        title = f"Simulated building, not one of the training, {SENSOR}; {name}"
        plots.comparison(path, frame.scan, labels, truth, space, frame.T_base_lidar, title)
        shrink(path, space)


def shrink(path: Path, space: LabelSpace) -> None:
    """Make a picture smaller than LARGEST: by a palette with the colours of the classes, then by size."""
    picture = Image.open(path).convert("RGB")
    size = path.stat().st_size
    exact = [*space.palette[space.ids].ravel().tolist(), 255, 255, 255, 0, 0, 0]
    while True:
        for colours in COLOURS:
            palette = Image.new("P", (1, 1))
            found = picture.quantize(colours).getpalette() or []
            palette.putpalette([*exact, *found[: 3 * colours - len(exact)]])
            content = io.BytesIO()
            picture.quantize(palette=palette, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
            if content.tell() < LARGEST:
                write_whole(path, content.getvalue())
                typer.echo(f"{path}: {picture.width} x {picture.height}, {content.tell():,} bytes (were {size:,})")
                return
        picture = picture.resize((round(SHRINK * picture.width), round(SHRINK * picture.height)))


if __name__ == "__main__":
    typer.run(gallery)
