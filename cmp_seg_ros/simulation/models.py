"""Furniture, things and people of real shape, from catalogues of Sweet Home 3D where they are installed.

A catalogue (*.sh3f) is a zip of OBJ models with a table of names and sizes. Debian's package sweethome3d-furniture has
five, CC0 and CC-BY. They are looked for in $CMP_SEG_FURNITURE, then where Debian puts them; without any, the second
world does with the generator's own boxes. What a model is stands in config/furniture_models.yaml.
"""

import os
import re
import zipfile
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_path

from cmp_seg_ros import configuration, outputs, resources
from cmp_seg_ros.digest import digest
from cmp_seg_ros.scan import Float32, Int32
from cmp_seg_ros.simulation import materials as m
from cmp_seg_ros.simulation.mesh import Rng, Shape

VARIABLE = "CMP_SEG_FURNITURE"
FOLDER = Path("/usr/share/sweethome3d/furniture")
TABLE = "config/furniture_models.yaml"
LARGEST_FILE = 2_000_000  # bytes of an OBJ file: what is larger has more detail than a lidar sees
CELL = 0.012  # m; corners nearer to each other are one
TRIANGLES = 6000  # at most, of a model
LIMITS = (LARGEST_FILE, CELL, TRIANGLES)
SMALL = (0.55, 0.6)  # m: width and depth, height; at most, of what stands on tables


class ModelTable(configuration.KnownFields):
    """`config/furniture_models.yaml`."""

    skip: str
    classes: list[tuple[str, str]]

    def name_of(self, name: str) -> str | None:
        """Class in `indoor` of a model, None where it is left out."""
        if re.search("".join(self.skip.split()), name.lower()):
            return None
        return next((label for label, words in self.classes if re.search(words, name.lower())), "clutter")


@dataclass(frozen=True)
class Model:
    """(T, 3, 3) triangles in metres, z up, its back towards -y, standing on z = 0, centred; (T,) piece of each."""

    name: str
    label: str
    elevation: float  # where it hangs
    triangles: Float32
    piece: Int32

    @property
    def size(self) -> Float32:
        """(3,) width, depth, height."""
        corners = self.triangles.reshape(-1, 3)
        return np.asarray(corners.max(axis=0) - corners.min(axis=0), np.float32)

    def put(self, shape: Shape, rng: Rng, at: Any = (0.0, 0.0, 0.0), yaw: float = 0.0) -> None:
        """Add it to a shape, each of its pieces of a random material."""
        own = Shape()
        families = (m.wood, m.lacquer, m.fabric, m.metal)
        body = m.one_of(rng, *families)
        for number in np.unique(self.piece):
            material = body if rng.random() < 0.5 else m.one_of(rng, *families)
            own.add(self.triangles[self.piece == number], self.label, material)
        shape.put(own, at, yaw)


def catalogues() -> list[Path]:
    """The *.sh3f files at hand."""
    folder = Path(os.environ.get(VARIABLE) or FOLDER)
    return sorted(folder.glob("*.sh3f")) if folder.is_dir() else []


@cache
def models() -> tuple[Model, ...]:
    """All models that can be used, in the order of the catalogues; read once, then kept in the cache folder."""
    paths = catalogues()
    if not paths:
        return ()
    sizes = "".join(f"{path.name}{path.stat().st_size}" for path in paths)
    kept = (
        user_cache_path(resources.PACKAGE) / f"furniture-{digest([resources.resource(TABLE)], sizes, str(LIMITS))}.npz"
    )
    if not kept.is_file():
        table = configuration.read(ModelTable, "table of models", resources.resource(TABLE))
        found = [model for path in paths for model in _read(path, table)]
        content = BytesIO()
        np.savez_compressed(
            content,
            names=np.array([[model.name, model.label] for model in found]),
            elevation=np.array([model.elevation for model in found]),
            ends=np.cumsum([len(model.triangles) for model in found]),
            triangles=np.concatenate([model.triangles for model in found]),
            piece=np.concatenate([model.piece for model in found]),
        )
        kept.parent.mkdir(parents=True, exist_ok=True)
        outputs.write_whole(kept, content.getbuffer())
    with np.load(kept) as file:
        ends = file["ends"][:-1]
        parts = np.split(file["triangles"], ends), np.split(file["piece"], ends)
        rows = zip(file["names"], file["elevation"], *parts, strict=True)
        return tuple(Model(str(name), str(label), float(z), t, p) for (name, label), z, t, p in rows)


@cache
def of_kind(kind: str) -> tuple[Model, ...]:
    """Models that stand on the floor (`floor`) or on tables (`small`), hang on walls (`hung`); `people`; `cars`."""
    found = []
    for model in models():
        w, d, h = (float(v) for v in model.size)
        hangs, person = model.elevation > 0.35, model.label == "person"
        small = max(w, d) < SMALL[0] and h < SMALL[1]
        car = model.label == "clutter" and max(w, d) > 2.8 and 1.1 < h < 2.2
        is_kind = {
            "people": person and h > 0.9,
            "cars": car,
            "small": small and not person and not hangs,
            "hung": hangs and model.elevation < 2.0 and d < 0.8 and w < 2.0 and not person,
            "floor": not (hangs or small or person or car) and 0.3 < h < 2.7 and 0.2 < max(w, d) < 3.2,
        }
        if is_kind[kind]:
            found.append(model)
    return tuple(found)


def pick(rng: Rng, kind: str, *labels: str) -> Model | None:
    """A random model of a kind, of one of these classes where any are named; None where there is none."""
    found = [model for model in of_kind(kind) if not labels or model.label in labels]
    return found[int(rng.integers(len(found)))] if found else None


def _read(path: Path, table: ModelTable) -> list[Model]:
    with zipfile.ZipFile(path) as file:
        text = file.read("PluginFurnitureCatalog.properties").decode("latin1")
        entries: dict[int, dict[str, str]] = {}
        for key, number, value in re.findall(r"^(\w+)#(\d+)=(.*?)\s*$", text, re.MULTILINE):
            entries.setdefault(int(number), {})[key] = value
        sizes = {info.filename: info.file_size for info in file.infolist()}
        found = []
        for entry in entries.values():
            label, inside = table.name_of(entry["name"]), entry["model"].lstrip("/")
            if label is None or not inside.endswith(".obj") or sizes.get(inside, LARGEST_FILE) >= LARGEST_FILE:
                continue
            model = _model(entry, label, file.read(inside).decode("latin1"))
            if model is not None:
                found.append(model)
        return found


def _model(entry: dict[str, str], label: str, text: str) -> Model | None:
    """A model from its entry and its OBJ file, in metres and in our axes; None where it has too much detail."""
    corners, faces, pieces, piece = [], [], [], 0
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "v":
            corners.append([float(word) for word in words[1:4]])
        elif words[0] == "usemtl":
            piece += 1
        elif words[0] == "f":
            corner = [int(word.split("/")[0]) for word in words[1:]]
            corner = [number - 1 if number > 0 else len(corners) + number for number in corner]
            for i in range(1, len(corner) - 1):
                faces.append([corner[0], corner[i], corner[i + 1]])
                pieces.append(piece)
    if not faces:
        return None
    places = np.array(corners)
    if "modelRotation" in entry:
        places = places @ np.array(entry["modelRotation"].split(), np.float64).reshape(3, 3).T
    used = places[np.unique(faces)]
    low, high = used.min(axis=0), used.max(axis=0)
    width, depth, height = (float(entry[name]) / 100 for name in ("width", "depth", "height"))
    places = (places - (low + high) / 2) / np.maximum(high - low, 1e-9) * [width, height, depth]
    places = places[:, [0, 2, 1]] * [-1, 1, 1]  # y up, front towards z -> z up, front towards y
    places[:, 2] += height / 2
    places = np.round(places / CELL) * CELL
    triangles = places[np.array(faces)]
    area = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1)
    _, first = np.unique(np.sort(triangles.reshape(len(triangles), -1), axis=1), axis=0, return_index=True)
    keep = np.zeros(len(triangles), bool)
    keep[first] = True
    keep &= area > 1e-9
    if not 0 < keep.sum() <= TRIANGLES:
        return None
    elevation = float(entry.get("elevation", 0)) / 100
    return Model(entry["name"], label, elevation, triangles[keep].astype(np.float32), np.array(pieces, np.int32)[keep])
