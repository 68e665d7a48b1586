"""A simulated camera: colour, class and depth of every pixel, with one ray per pixel."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.scan import UNLABELLED, Bool, Float32, Float64, Int64, UInt8
from cmp_seg_ros.simulation.building import Building
from cmp_seg_ros.simulation.mesh import Material, Rng, Transform
from cmp_seg_ros.simulation.raycast import Hits, Scene, cast_all
from cmp_seg_ros.simulation.texture import GAMMA, TexturedMesh

SKY = np.array([0.75, 0.85, 0.97], dtype=np.float32)
LIGHT_CELL = 0.25  # metres; grid that maps places to the lamp of their room
TEXTURE_SIZE = 256
LAYERS = 4  # panes and mirrors along a ray, at most


@dataclass(frozen=True)
class Image:
    """A rendered image.

    Args:
        rgb: (H, W, 3) uint8.
        label: (H, W) uint8 in `indoor`; glass has its own class, not that behind it; 255: sky.
        depth: (H, W) metres along the ray to that surface; infinite in the sky.
    """

    rgb: UInt8
    label: UInt8
    depth: Float32


class Lights:
    """One lamp under the ceiling of each room, and the sun outside."""

    def __init__(self, building: Building) -> None:
        rooms = building.plan.rooms
        cells = np.array([room.cell for room in rooms])
        self._origin = cells[:, :2].min(axis=0)
        shape = np.ceil((cells[:, 2:].max(axis=0) - self._origin) / LIGHT_CELL).astype(int) + 1
        self._room = np.full(shape, len(rooms), dtype=np.int32)
        for i, cell in enumerate(cells):
            x0, y0, x1, y1 = np.round((cell.reshape(2, 2) - self._origin) / LIGHT_CELL).astype(int).ravel()
            self._room[x0 : x1 + 1, y0 : y1 + 1] = i
        rng = np.random.default_rng([building.seed, 4])
        lamps = []
        for room in rooms:
            x0, y0, x1, y1 = room.inner
            x, y = rng.uniform([0.35, 0.35], [0.65, 0.65]) * (x1 - x0, y1 - y0) + (x0, y0)
            lamps.append((x, y, room.height - 0.25))
        sun = (*(self._origin - 300.0), 400.0)
        self._places = np.array([*lamps, sun], dtype=np.float32)
        brightness = rng.uniform(0.6, 1.1, len(rooms) + 1)
        warmth = rng.uniform(0.88, 1.0, len(rooms) + 1)
        self._colors = (brightness[:, None] * np.stack([0 * warmth + 1, (1 + warmth) / 2, warmth], 1)).astype(
            np.float32
        )
        self._ambient = np.append(rng.uniform(0.35, 0.55, len(rooms)), 0.6).astype(np.float32)

    def of(self, places: Float32) -> tuple[Float32, Float32, Float32]:
        """(N, 3) places -> position (N, 3) and colour (N, 3) of their lamp, and ambient light (N,)."""
        index = np.floor((places[:, :2] - self._origin.astype(np.float32)) / LIGHT_CELL).astype(np.int64)
        inside = ((index >= 0) & (index < self._room.shape)).all(axis=1)
        index[~inside] = 0
        room = np.where(inside, self._room[index[:, 0], index[:, 1]], len(self._places) - 1)
        return self._places[room], self._colors[room], self._ambient[room]


class Renderer:
    """Renders images of one camera. The rays of its pixels are computed once."""

    def __init__(self, camera: Camera, building: Building) -> None:
        self.camera, self.lights = camera, Lights(building)
        rays = camera.rays()
        self._seen: Bool = np.asarray(np.isfinite(rays).all(axis=1))
        self._rays = np.where(self._seen[:, None], rays, np.float32(0))
        self._rays[~self._seen, 2] = 1
        # vignetting: fourth power of the cosine of the angle from the optical axis
        self._vignette = (0.6 + 0.4 * np.clip(self._rays[:, 2], 0, 1) ** 4)[:, None].astype(np.float32)

    def render(self, scenes: list[Scene], T_world_camera: Transform, rng: Rng) -> Image:
        """An image of `scenes` from the pose (4, 4) `T_world_camera`; `rng` is for the sensor's noise."""
        turn = T_world_camera[:3, :3].astype(np.float32)
        directions = np.ascontiguousarray(self._rays @ turn.T)
        origins = np.broadcast_to(T_world_camera[:3, 3].astype(np.float32), directions.shape)
        hits = cast_all(scenes, origins, directions)
        label, depth = hits.label.copy(), hits.distance.copy()
        color = self._colors(scenes, origins, directions, hits, LAYERS)
        color = 1.25 * color * self._vignette
        color += 0.012 * rng.standard_normal(color.shape, dtype=np.float32)
        rgb = (255 * np.clip(color, 0, 1) ** np.float32(1 / GAMMA)).astype(np.uint8)
        rgb[~self._seen], label[~self._seen], depth[~self._seen] = 0, UNLABELLED, np.inf
        size = self.camera.height, self.camera.width
        return Image(rgb.reshape(*size, 3), label.reshape(size), depth.reshape(size))

    def _colors(self, scenes: list[Scene], origins: Float32, directions: Float32, hits: Hits, layers: int) -> Float32:
        """(N, 3) colours, blended with those behind glass and in mirrors, up to `layers` deep."""
        color = self._shade(scenes, origins, directions, hits)
        rows = np.flatnonzero((hits.transmission > 0.05) | (hits.gloss > 0.95)).astype(np.int32)
        if not len(rows) or not layers:
            return color
        seen = hits.rows(rows)
        mirror = (seen.gloss > 0.95)[:, None]
        normal, way = seen.normal, directions[rows]
        onward = np.where(mirror, way - 2 * (way * normal).sum(axis=1, keepdims=True) * normal, way).astype(np.float32)
        start = (origins[rows] + seen.distance[:, None] * way + 0.005 * onward).astype(np.float32)
        behind = self._colors(scenes, start, onward, cast_all(scenes, start, onward), layers - 1)
        share = np.where(mirror, np.float32(0.9), 0.9 * seen.transmission[:, None])
        color[rows] = (1 - share) * color[rows] + share * behind
        return color

    def _shade(self, scenes: list[Scene], origins: Float32, directions: Float32, hits: Hits) -> Float32:
        """(N, 3) colours by Lambert's law under one lamp with shadows, plus ambient light."""
        places = origins + np.where(hits.hit, hits.distance, 0)[:, None].astype(np.float32) * directions
        albedo, emissive = self._albedo(scenes, hits, places)
        lamp, lamp_color, ambient = self.lights.of(places)
        towards = lamp - places
        away = np.linalg.norm(towards, axis=1, keepdims=True)
        towards /= np.maximum(away, 1e-3)
        facing = np.clip((towards * hits.normal).sum(axis=1, keepdims=True), 0, 1)
        fading = np.where(away < 50, 1 / (0.7 + 0.04 * away**2), np.float32(0.9))
        direct = facing * fading * self._lit(scenes, places, hits, towards, away)
        around = ambient[:, None] * (0.8 + 0.2 * hits.normal[:, 2:])
        color = albedo * (around + lamp_color * direct)
        color = np.where(emissive[:, None], np.float32(1.1), color)
        return np.where(hits.hit[:, None], color, SKY).astype(np.float32)

    def _lit(self, scenes: list[Scene], places: Float32, hits: Hits, towards: Float32, away: Float32) -> Float32:
        """(N, 1) 1 where the lamp is visible, else 0.15; full images cast every second pixel of every second row."""
        full = len(places) == self.camera.width * self.camera.height
        size = (self.camera.height, self.camera.width) if full else (1, len(places))
        picks = np.arange(len(places)).reshape(size)[:: 2 if full else 1, :: 2 if full else 1]
        rows = picks.ravel()
        start = places[rows] + 0.01 * hits.normal[rows]
        shadow = cast_all(scenes, start, np.ascontiguousarray(towards[rows]))
        # lamps have a size, and glass casts no shadow
        lit = (shadow.distance > away[rows, 0] - 0.35) | (shadow.transmission > 0.5)
        values = np.where(lit, np.float32(1), np.float32(0.15)).reshape(picks.shape)
        if full:
            values = values.repeat(2, axis=0).repeat(2, axis=1)[: size[0], : size[1]]
        return values.reshape(-1, 1)

    def _albedo(self, scenes: list[Scene], hits: Hits, places: Float32) -> tuple[Float32, Bool]:
        """(N, 3) colour of the material with its texture, (N,) whether it is a lamp."""
        color, texture = np.zeros((len(hits), 3), np.float32), np.zeros(len(hits), np.int64)
        offset = 0
        for scene in scenes:
            rows = np.flatnonzero((hits.triangle >= offset) & (hits.triangle < offset + len(scene.mesh)))
            if len(rows):
                table, names = _looks(scene.mesh.materials)
                material = scene.mesh.material[hits.triangle[rows] - offset]
                color[rows], texture[rows] = table[material], names[material]
                if isinstance(scene.mesh, TexturedMesh):
                    color[rows] *= scene.mesh.color(hits.triangle[rows] - offset, places[rows])
            offset += len(scene.mesh)
        # texture coordinates: the two axes along the surface
        normal = np.abs(hits.normal)
        flat = normal[:, 2] > 0.7
        u = np.where(flat | (normal[:, 0] < normal[:, 1]), places[:, 0], places[:, 1])
        v = np.where(flat, places[:, 1], places[:, 2])
        row = (v * (TEXTURE_SIZE / 2)).astype(np.int64) % TEXTURE_SIZE  # a texture covers 2 m
        column = (u * (TEXTURE_SIZE / 2)).astype(np.int64) % TEXTURE_SIZE
        return color * textures()[texture, row, column][:, None], texture == TEXTURES.index("emissive")


TEXTURES = ("", "wood", "planks", "tiles", "carpet", "fabric", "noise", "bricks", "panels", "leaves", "emissive")


@cache
def _looks(materials: tuple[Material, ...]) -> tuple[Float32, Int64]:
    """(M, 3) colour and (M,) texture of each material."""
    names = [TEXTURES.index(m.texture) if m.texture in TEXTURES else 0 for m in materials]
    return np.array([m.color for m in materials], dtype=np.float32), np.array(names, dtype=np.int64)


@cache
def textures() -> Float32:
    """(T, S, S) factors on the colour: tiles of 2 m x 2 m that repeat."""
    rng = np.random.default_rng(0)
    size = TEXTURE_SIZE
    y, x = np.mgrid[0:size, 0:size] / size  # 0..1 is 2 m

    def grain(cells: int, amount: float, stretch: int = 1) -> Float64:
        coarse = rng.normal(0, amount, (cells, max(1, cells // stretch)))
        rows, columns = (y * coarse.shape[0]).astype(int), (x * coarse.shape[1]).astype(int)
        return np.asarray(coarse[rows, columns])

    def lines(step: float, width: float, value: Float64, depth: float) -> Float64:
        return np.where((value / step) % 1 < width / step, -depth, 0.0)

    brick_row = np.floor(y / 0.04)
    plank_row = np.floor(y / 0.0625)
    layers = {
        "": np.zeros((size, size)),
        "wood": grain(size, 0.05, 8) + 0.08 * np.sin(40 * np.pi * y + 3 * np.sin(4 * np.pi * x)),
        "planks": rng.normal(0, 0.07, 16)[plank_row.astype(int) % 16]
        + grain(size, 0.04, 8)
        + lines(0.0625, 0.004, y, 0.3)
        + lines(0.5, 0.004, x + 0.17 * plank_row, 0.3),
        "tiles": grain(16, 0.02) + lines(0.15625, 0.008, x, 0.3) + lines(0.15625, 0.008, y, 0.3),
        "carpet": grain(size, 0.12),
        "fabric": grain(size, 0.06) + 0.05 * np.sin(200 * np.pi * (x + y)),
        "noise": grain(64, 0.03) + grain(16, 0.03) + grain(size, 0.03),
        "bricks": lines(0.04, 0.006, y, 0.18) + lines(0.125, 0.006, x + 0.0625 * brick_row, 0.18) + grain(64, 0.03),
        "panels": lines(0.3, 0.004, x, 0.15) + lines(0.3, 0.004, y, 0.15),
        "leaves": grain(64, 0.25),
        "emissive": np.zeros((size, size)),
    }
    return np.clip(1 + np.stack([layers[name] for name in TEXTURES]), 0.3, 1.5).astype(np.float32)
