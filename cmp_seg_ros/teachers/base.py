"""What every teacher offers, and how one is opened by its name.

teacher = open_teacher("mosaic")
masks, features = teacher.masks(rgb), teacher.features(rgb)      # of one (H, W, 3) image
masks.at(uv), features.at(uv)                                    # (N, C), (N, D) at image pixels (N, 2)
"""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import NamedTuple

import numpy as np

from cmp_seg_ros import teachers
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.resources import PACKAGE
from cmp_seg_ros.scan import Float32, UInt8

FOLDER = "CMP_SEG_TEACHERS"  # environment variable: the folder of weights
HUB = "https://huggingface.co"
COMMON = ("base", "download", "pretrained")  # files of this folder that are no teachers


class Masks(NamedTuple):
    """The classes of an image's pixels.

    label: (H, W) uint8 ids in the teacher's label space. confidence: (H, W) float32, 0..1, of that class.
    probabilities: (h, w, C) float32 of all classes at the teacher's own resolution, over the whole image; or None.
    shift: see `sample`.
    """

    label: UInt8
    confidence: Float32
    probabilities: Float32 | None = None
    shift: float = 0.0

    def at(self, uv: Float32) -> Float32:
        """(N, C) probabilities at (N, 2) image pixels. Raises ValueError if the teacher gives none."""
        if self.probabilities is None:
            raise ValueError("this teacher gives no probabilities")
        return sample(self.probabilities, self.label.shape, uv, self.shift)


class Features(NamedTuple):
    """Features of an image.

    values: (h, w, D) float32, over the whole image. size: (height, width) of the image. shift: see `sample`.
    """

    values: Float32
    size: tuple[int, int]
    shift: float = 0.0

    def at(self, uv: Float32) -> Float32:
        """(N, D) features at (N, 2) image pixels."""
        return sample(self.values, self.size, uv, self.shift)


def sample(grid: Float32, size: tuple[int, ...], uv: Float32, shift: float = 0.0) -> Float32:
    """Bilinear samples of a grid that covers an image; cheaper than to upsample the grid.

    Pixel u of an image of W pixels is at column (u + 1/2) w / W - 1/2 + `shift` of a grid of w columns; rows likewise.
    Beyond the outermost centres of the grid its border is continued.

    Args:
        grid: (h, w, D).
        size: (H, W) of the image.
        uv: (N, 2) pixels (u, v); the centre of the first pixel is (0, 0).
        shift: cells; not 0 for networks that do not resize by pixel centres.

    Returns:
        (N, D) float32.
    """
    cells, pixels = np.array(grid.shape[1::-1]), np.array(size[1::-1])
    place = np.clip((np.asarray(uv, np.float64) + 0.5) * (cells / pixels) - 0.5 + shift, 0, cells - 1)
    before = np.minimum(place.astype(np.int64), np.maximum(cells - 2, 0))
    after = np.minimum(before + 1, cells - 1)
    (x0, y0), (x1, y1) = before.T, after.T
    fx, fy = (place - before).astype(np.float32).T[:, :, None]  # (N, 1) each
    upper = (1 - fx) * grid[y0, x0] + fx * grid[y0, x1]
    lower = (1 - fx) * grid[y1, x0] + fx * grid[y1, x1]
    return ((1 - fy) * upper + fy * lower).astype(np.float32)


def resized(grid: Float32, size: tuple[int, int], shift: float = 0.0) -> Float32:
    """(h, w) -> (H, W): what `sample` gives at every pixel of an image of that (height, width)."""
    from PIL import Image

    height, width = grid.shape
    padded = Image.fromarray(np.pad(grid, 1, mode="edge"))
    covered = 1 + shift, 1 + shift, 1 + shift + width, 1 + shift + height
    return np.asarray(padded.resize(size[::-1], Image.Resampling.BILINEAR, covered))


def nearest(grid: UInt8, size: tuple[int, int]) -> UInt8:
    """(h, w) -> (H, W): the cell around each pixel's centre."""
    rows, columns = (((np.arange(n) + 0.5) * (m / n)).astype(np.int64) for n, m in zip(size, grid.shape, strict=True))
    return grid[rows[:, None], columns]


class Teacher:
    """A frozen network for images; not safe for use by several threads at once.

    Attributes:
        name: as in `open_teacher`.
        label_space: of its masks; None if it gives none.
        dimension: D of its features; 0 if it gives none.
    """

    name: str
    label_space: LabelSpace | None
    dimension: int

    def masks(self, rgb: UInt8) -> Masks:
        """The classes of an (H, W, 3) image of any size. Raises UserError if the teacher gives none."""
        raise UserError(f"teacher {self.name} gives features, but no masks; take another --teacher")

    def features(self, rgb: UInt8) -> Features:
        """The features of an (H, W, 3) image of any size. Raises UserError if the teacher gives none."""
        raise UserError(f"teacher {self.name} gives masks, but no features; take another --teacher")


class WeightFile(NamedTuple):
    """A file of a teacher's weights.

    name: of the file. at: URL of its folder. sha256: of its content; empty where only the server knows it.
    instead: names of files there that may stand in its place.
    """

    name: str
    at: str
    sha256: str = ""
    instead: tuple[str, ...] = ()

    def url(self, name: str) -> str:
        """Where a file of that name is; $HF_ENDPOINT is Hugging Face's, or a mirror of it."""
        return f"{self.at.replace(HUB, os.environ.get('HF_ENDPOINT') or HUB)}/{name}"

    def path(self, card: "Card", name: str) -> Path:
        """Where it is here: in the teacher's folder, or by itself under the teacher's own name for it."""
        return folder() / card.file if len(card.files) == 1 else folder() / card.file / name


class Card(NamedTuple):
    """A teacher that can be opened, whether or not its weights are here.

    name: of the teacher. file: of its weights, or their folder, in `folder()`; empty if it has none.
    source: where to get them. licence: of the weights. load: opens the teacher from its weights; raises UserError.
    recognises: whether a path holds weights of this kind. files: to fetch. megabytes: of them, about.
    label_space: of its masks, or empty. dimension: of its features, or 0.
    """

    name: str
    file: str
    source: str
    licence: str
    load: Callable[[Path], Teacher]
    recognises: Callable[[Path], bool]
    files: tuple[WeightFile, ...] = ()
    megabytes: int = 0
    label_space: str = ""
    dimension: int = 0


def folder() -> Path:
    """Where weights lie: $CMP_SEG_TEACHERS, or `teachers` in the user's data folder."""
    from platformdirs import user_data_path

    return Path(os.environ.get(FOLDER) or user_data_path(PACKAGE) / "teachers")


def cards() -> dict[str, Card]:
    """All teachers by name. Each file of this folder lists its own as CARDS."""
    modules = [info.name for info in iter_modules(teachers.__path__) if info.name not in COMMON]
    found: list[Card] = [card for name in modules for card in import_module(f"{teachers.__name__}.{name}").CARDS]
    return {card.name: card for card in found}


def open_teacher(name_or_path: str | Path) -> Teacher:
    """The teacher of a name, or of weights in a file or folder.

    Raises:
        UserError: no such teacher; its weights are not here (says from where and to where to copy them), not whole, or
            of another network; a package is missing.
    """
    known = cards()
    if card := known.get(str(name_or_path)):
        path = folder() / card.file
        if card.file and not path.exists():
            raise UserError(
                f"the weights of teacher {card.name} are not at {path}: {card.source}; copy them there, or set "
                f"{FOLDER} to their folder"
            )
        return card.load(path)
    path = Path(name_or_path)
    if not path.exists():
        names = ", ".join(known)
        raise UserError(f"no teacher '{name_or_path}': neither a file or folder of weights, nor one of {names}")
    for card in known.values():
        if card.recognises(path):
            return card.load(path)
    raise UserError(f"{path} holds no weights of a known teacher ({', '.join(known)})")
