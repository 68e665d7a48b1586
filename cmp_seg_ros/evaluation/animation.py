"""An animation of a sequence: the labels of its scans from above and as range images."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cmp_seg_ros.datasets.frame import Frame
from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.evaluation.pipeline import Consumer, Result
from cmp_seg_ros.evaluation.report import Report
from cmp_seg_ros.geometry.projection import upright
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Labels, UInt8

ANIMATION = "animation.webp"
MOST = 120  # pictures; of longer sequences every second, fourth, ... scan is shown
WIDTH, HEIGHT = 900, 480  # pixels, of the view from above and its legend
PANORAMA = 160  # pixels, height of the range image
CELL = 4  # pixels, side of a point from above
SECONDS = 0.1  # between scans without stamps
QUALITY = 70  # of WebP
COLOURS = 128


class Animation(Consumer):
    """Writes animation.webp into the folder `out`: the sequence at its own pace.

    Args:
        space: of the labels.
    """

    replaces = (ANIMATION,)

    def __init__(self, space: LabelSpace, out: Path) -> None:
        self.space, self.out = space, out
        self.step, self.seen = 1, 0
        self.extent = 1.0  # metres from the lidar, of the view from above; the first scan decides
        self.pictures: list[tuple[int, Image.Image]] = []  # stamps and pictures

    def begin(self) -> None:
        (self.out / ANIMATION).unlink(missing_ok=True)

    def add(self, result: Result, report: Report) -> None:
        frame, labels = result.frame, result.labels
        if labels is None:
            return
        if self.seen % self.step == 0:
            if not self.pictures:
                self.extent = reach(frame)
            picture = draw(frame, labels, self.space, self.extent)
            # A third of the memory.
            self.pictures.append((frame.scan.stamp, picture.quantize(COLOURS, Image.Quantize.FASTOCTREE)))
        self.seen += 1
        if len(self.pictures) > MOST:
            self.step *= 2
            self.pictures = self.pictures[::2]

    def finish(self, report: Report) -> None:
        if len(self.pictures) < 2:
            return
        stamps = np.array([stamp for stamp, _ in self.pictures])
        pause = float(np.median(np.diff(stamps))) * 1e-9
        pause = pause if pause > 0 else SECONDS * self.step
        first, *others = [picture for _, picture in self.pictures]
        first.save(
            self.out / ANIMATION,
            save_all=True,
            append_images=others,
            duration=max(20, round(1000 * pause)),
            loop=0,
            quality=QUALITY,
        )
        report.files.append(ANIMATION)


def reach(frame: Frame) -> float:
    """How far from the lidar the bulk of the points of a scan is, level with the floor, metres."""
    xyz = frame.scan.xyz[frame.scan.valid()]
    distance = np.hypot(xyz[:, 0], xyz[:, 1])
    return max(1.0, 1.05 * float(np.percentile(distance, plots.BULK))) if len(distance) else 1.0


def draw(frame: Frame, labels: Labels, space: LabelSpace, extent: float) -> Image.Image:
    """One picture: from above (x, forward, to the right) with scale and legend, and the range image below."""
    picture = Image.new("RGB", (WIDTH, HEIGHT + PANORAMA), "white")
    picture.paste(Image.fromarray(from_above(frame, labels, space, extent)), (0, 0))
    panorama, _ = plots.range_image(frame.scan.xyz, labels.label, space)
    picture.paste(Image.fromarray(panorama).resize((WIDTH, PANORAMA), Image.Resampling.NEAREST), (0, HEIGHT))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    left = HEIGHT + 24
    pen.text((left, 16), f"scan {frame.key}", "black", font)
    for row, c in enumerate(space.classes):
        top = 48 + 24 * row
        pen.rectangle((left, top, left + 16, top + 16), c.color, "#555555")
        pen.text((left + 26, top), c.name, "black", font)
    length = plots.round_length(extent / 2)
    pixels = length / extent * HEIGHT / 2
    pen.line((left, HEIGHT - 34, left + pixels, HEIGHT - 34), "black", 3)
    pen.text((left, HEIGHT - 28), f"{length:g} m", "black", font)
    pen.text((left + 120, HEIGHT - 28), "top: from above; bottom: range image", "#555555", font)
    middle = HEIGHT / 2
    pen.ellipse((middle - 5, middle - 5, middle + 5, middle + 5), "white", "black", 2)
    return picture


def from_above(frame: Frame, labels: Labels, space: LabelSpace, extent: float) -> UInt8:
    """(HEIGHT, HEIGHT, 3) picture of `extent` metres around the lidar; higher points hide lower ones, but the ceiling
    hides nothing."""
    xyz = upright(frame.scan.xyz, frame.T_base_lidar)
    shown = np.flatnonzero((labels.label != UNLABELLED) & frame.scan.valid())
    ceiling = np.isin(labels.label[shown], [c.id for c in space.classes if c.name == "ceiling"])
    order = shown[np.lexsort((xyz[shown, 2], ~ceiling))]
    column = ((xyz[order, 0] / extent + 1) * HEIGHT / 2).astype(np.int64)
    row = ((1 - xyz[order, 1] / extent) * HEIGHT / 2).astype(np.int64)
    picture = np.full((HEIGHT + CELL, HEIGHT + CELL, 3), 255, np.uint8)
    inside = (column >= 0) & (column < HEIGHT) & (row >= 0) & (row < HEIGHT)
    colour = space.palette[labels.label[order[inside]]]
    for down in range(CELL // 2):
        for right in range(CELL // 2):
            picture[row[inside] + down, column[inside] + right] = colour
    return picture[:HEIGHT, :HEIGHT]
