"""Spinning lidars: their description, and the simulation of their measurements."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, model_validator

from cmp_seg_ros import configuration, resources
from cmp_seg_ros.scan import UNLABELLED, Float32, Float64, Int64, Scan, UInt8
from cmp_seg_ros.simulation.mesh import Rng, Transform
from cmp_seg_ros.simulation.raycast import Hits, Scene, cast_all

FOLDER = "config/sensors"
FIRST_SENSORS = ("os0-128", "os1-16", "os1-64", "vlp-16", "vlp-32c", "xt-32")  # of the first world (see building.py)
PANES = 3  # along a ray, at most
TURNS, SWINGS = 19.37, 7.13  # of a rosette's prisms during a scan; not integers, so that lines do not repeat


class Lidar(configuration.KnownFields):
    """A spinning lidar. `altitudes` and `azimuths` (degrees) have one value per beam, in the order of its channels.

    `reach` is the range in metres at which half of the pulses on a 10 % target at normal incidence return. A lidar with
    a `rosette` has another prism, which swings all beams up and down while they turn. `intensity` is the content of the
    intensity channel: received signal (decreases with range), or calibrated reflectivity.
    """

    model_config = ConfigDict(ignored_types=(cached_property,), frozen=True)

    name: str
    altitudes: list[float] = Field(min_length=1)
    azimuths: list[float]
    columns: int = Field(gt=0)
    rate: float = Field(gt=0)  # turns a second
    clockwise: bool = True
    layout: Literal["ouster", "velodyne", "hesai"]
    rosette: tuple[float, float] | None = None  # degrees: how far all beams swing down and up while they turn
    beam_offset: float = 0.0  # metres from the axis to the origin of a beam
    min_range: float
    max_range: float
    range_noise: float  # one sigma, metres
    range_resolution: float
    intensity: Literal["signal", "reflectivity"]
    intensity_scale: float
    reach: float

    @model_validator(mode="after")
    def _consistent(self) -> "Lidar":
        if len(self.altitudes) != len(self.azimuths):
            raise ValueError(f"{len(self.altitudes)} altitudes but {len(self.azimuths)} azimuths")
        return self

    @classmethod
    def load(cls, name_or_path: str | Path) -> "Lidar":
        """Read a sensor by its name in config/sensors/, or from a YAML file. Raises UserError."""
        return configuration.load(cls, FOLDER, "sensor", name_or_path)

    @property
    def beams(self) -> int:
        return len(self.altitudes)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of a scan: one row per beam, one column per firing."""
        return self.beams, self.columns

    @cached_property
    def firing(self) -> Int64:
        """(H, W) index of the firing of each pixel.

        Ouster's driver shifts each row by its beam's azimuth, so that a column of the image has one direction; for
        other sensors a column is one firing.
        """
        firing = np.tile(np.arange(self.columns), (self.beams, 1))
        if self.layout == "ouster":
            shift = np.round(np.array(self.azimuths) * self.columns / 360).astype(np.int64)
            firing = (firing - shift[:, None] * (1 if self.clockwise else -1)) % self.columns
        return firing

    @cached_property
    def times(self) -> Float32:
        """(H, W) seconds from the start of the sweep."""
        return (self.firing / (self.columns * self.rate)).astype(np.float32)

    @cached_property
    def directions(self) -> Float32:
        """(H, W, 3) unit directions in the lidar's frame."""
        altitude = np.radians(self.altitudes)[:, None]
        if self.rosette is not None:
            altitude = altitude + np.radians(self._swing)
        azimuth = self._rotor - np.radians(self.azimuths)[:, None]
        parts = np.cos(altitude) * np.cos(azimuth), np.cos(altitude) * np.sin(azimuth), np.sin(altitude) + 0 * azimuth
        return np.stack(parts, axis=2).astype(np.float32)

    @cached_property
    def offsets(self) -> Float32:
        """(H, W, 3) origins of the beams in the lidar's frame."""
        ring = np.stack([np.cos(self._rotor), np.sin(self._rotor), 0 * self._rotor], axis=2)
        return (self.beam_offset * ring).astype(np.float32)

    @property
    def _swing(self) -> Float64:
        """(H, W) degrees by which the beams of a rosette are raised: a triangle wave over the turns."""
        assert self.rosette is not None
        low, high = self.rosette
        phase = (SWINGS * self.firing / self.columns + np.arange(self.beams)[:, None] * 0.31) % 1
        return low + (high - low) * np.abs(2 * phase - 1)

    @property
    def _rotor(self) -> Float64:
        """(H, W) azimuth of the rotor; the sweep starts at the rear."""
        turn = 2 * np.pi * self.firing / self.columns * (TURNS if self.rosette is not None else 1)
        return np.pi - turn if self.clockwise else turn - np.pi


def sensor_names() -> list[str]:
    return resources.names(FOLDER, ".yaml")


@dataclass(frozen=True)
class Noise:
    """Noise parameters, which differ between units and recordings.

    Args:
        range_scale: factor on the sensor's range noise.
        beam_bias: one sigma of a constant range error of each beam, metres.
        dropout: share of pulses lost at random.
        mixed: probability that a pulse on a depth edge returns a range between both sides.
        haze: share of spurious returns (dust, crosstalk).
        intensity_scale: factor on intensities.
        unit: number of the unit, which fixes its beam errors; None: new beam errors for each sweep.
    """

    range_scale: float = 1.0
    beam_bias: float = 0.004
    dropout: float = 0.003
    mixed: float = 0.3
    haze: float = 0.0001
    intensity_scale: float = 1.0
    unit: int | None = None

    @classmethod
    def random(cls, rng: Rng) -> "Noise":
        return cls(
            rng.uniform(0.5, 1.8), rng.uniform(0, 0.012), float(rng.choice([0.001, 0.01, 0.05])),
            rng.uniform(0.1, 0.6), float(rng.choice([0, 1e-4, 1e-3])), float(np.exp(rng.normal(0, 0.4))),
        )  # fmt: skip


NO_NOISE = Noise(0.0, 0.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Sweep:
    """One turn of a lidar: the scan, and the truth of each point.

    Args:
        scan: points in the lidar's frame at the time of their column.
        label: (N,) uint8 in `indoor`, 255 without a return.
        ring: (N,) uint16 channel.
        range: (N,) metres, 0 without a return.
        reflectivity: (N,) 0..1 times cosine of incidence.
    """

    scan: Scan
    label: UInt8
    ring: npt.NDArray[np.uint16]
    range: Float32
    reflectivity: Float32


def sweep(
    lidar: Lidar,
    scenes: list[Scene],
    T_world_lidar: Callable[[Float64], Transform],
    rng: Rng,
    noise: Noise = Noise(),
    stamp: int = 0,
) -> Sweep:
    """Simulate one turn of the lidar.

    Args:
        lidar: the sensor.
        scenes: static and dynamic geometry.
        T_world_lidar: (W,) seconds from the start of the sweep -> (W, 4, 4) poses.
        rng: for the noise.
        noise: noise parameters of this unit.
        stamp: nanoseconds, start of the sweep.
    """
    height, width = lidar.shape
    poses = T_world_lidar(np.arange(width) / (width * lidar.rate)).astype(np.float32)[lidar.firing]  # (H, W, 4, 4)
    turn, place = poses[..., :3, :3], poses[..., :3, 3]
    directions = (turn @ lidar.directions[..., None])[..., 0].reshape(-1, 3)
    origins = ((turn @ lidar.offsets[..., None])[..., 0] + place).reshape(-1, 3)

    hits = reflected(scenes, origins, directions, through_glass(scenes, origins, directions, rng))
    cosine = np.abs((hits.normal * directions).sum(axis=1))
    brightness = hits.reflectivity * (1 - 0.7 * hits.gloss) * cosine
    distance, label = hits.distance.copy(), hits.label.copy()
    returned = hits.hit & (rng.random(len(label), dtype=np.float32) < _detection(lidar, brightness, distance))
    returned &= rng.random(len(label), dtype=np.float32) >= noise.dropout
    if noise.mixed:
        distance, label = _mixed_pixels(rng, noise.mixed, distance, label, lidar.shape)
    if noise.haze:
        haze = np.flatnonzero(rng.random(len(label), dtype=np.float32) < noise.haze)
        shorter = np.minimum(distance[haze], 20.0) * rng.uniform(0.3, 1.0, len(haze)).astype(np.float32)
        returned[haze], distance[haze], label[haze] = True, shorter, UNLABELLED
    if noise.range_scale or noise.beam_bias:
        unit = rng if noise.unit is None else np.random.default_rng([noise.unit, 7])
        bias = noise.beam_bias * unit.standard_normal(height, dtype=np.float32)
        sigma = lidar.range_noise * noise.range_scale
        distance = distance + sigma * rng.standard_normal(len(distance), dtype=np.float32) + np.repeat(bias, width)
        step = np.float32(lidar.range_resolution)
        distance = np.round(distance / step) * step
    returned &= (distance > lidar.min_range) & (distance < lidar.max_range)

    distance = np.where(returned, distance, 0).astype(np.float32)
    local = lidar.directions.reshape(-1, 3) * distance[:, None]
    local += lidar.offsets.reshape(-1, 3)
    local[~returned] = 0
    intensity = _intensity(lidar, brightness, distance, noise, rng)
    scan = Scan(local, np.where(returned, intensity, 0), lidar.times.ravel(), stamp, "lidar", lidar.shape)
    label, brightness = np.where(returned, label, np.uint8(UNLABELLED)), np.where(returned, brightness, 0)
    return Sweep(scan, label, np.repeat(np.arange(height, dtype=np.uint16), width), distance, brightness)


def through_glass(scenes: list[Scene], origins: Float32, directions: Float32, rng: Rng) -> Hits:
    """First hits; some rays that meet glass continue behind it, more of them at normal incidence."""
    hits = cast_all(scenes, origins, directions)
    for _ in range(PANES):
        rows = np.flatnonzero((hits.transmission > 0) & hits.hit)
        if not len(rows):
            break
        cosine = np.abs((hits.normal[rows] * directions[rows]).sum(axis=1))
        # Schlick's approximation of Fresnel reflection between glass and air (Schlick 1994): 4 % at normal incidence.
        passing = hits.transmission[rows] * (1 - (0.04 + 0.96 * (1 - cosine) ** 5))
        goes_on = rng.random(len(rows)) < passing
        hits.transmission[rows[~goes_on]] = 0  # these return from the pane
        rows = rows[goes_on].astype(np.int32)
        if not len(rows):
            break
        before = hits.distance[rows] + np.float32(0.005)
        behind = cast_all(scenes, origins[rows] + before[:, None] * directions[rows], directions[rows])
        behind.distance[:] += before
        behind.reflectivity[:] *= hits.transmission[rows] ** 2  # through the pane twice
        hits.replace(rows, behind)
    return hits


def reflected(scenes: list[Scene], origins: Float32, directions: Float32, hits: Hits) -> Hits:
    """Replace hits on mirrors by the reflected surface: a ghost behind the mirror, without a true class (255)."""
    rows = np.flatnonzero(hits.gloss > 0.95).astype(np.int32)
    if len(rows):
        normal, before = hits.normal[rows], hits.distance[rows]
        onward = directions[rows] - 2 * (directions[rows] * normal).sum(axis=1, keepdims=True) * normal
        ghosts = cast_all(scenes, origins[rows] + before[:, None] * directions[rows] + 0.005 * onward, onward)
        ghosts.distance[:] += before
        ghosts.label[:] = UNLABELLED
        # incidence is relative to the ray as it left the sensor
        ghosts.normal[:] -= 2 * (ghosts.normal * normal).sum(axis=1, keepdims=True) * normal
        hits.replace(rows, ghosts)
    return hits


def _detection(lidar: Lidar, brightness: Float32, distance: Float32) -> Float32:
    """(N,) probability of a return: received power decreases with the square of the range."""
    power = (brightness / 0.1) * (lidar.reach / np.clip(distance, 0.1, 1e4)) ** 2
    return np.asarray(power / (1 + power), dtype=np.float32)


def _mixed_pixels(
    rng: Rng, probability: float, distance: Float32, label: UInt8, shape: tuple[int, int]
) -> tuple[Float32, UInt8]:
    """Mixed pixels: at a depth edge shorter than the pulse, the range lies between both surfaces."""
    d, names = distance.reshape(shape), label.reshape(shape)
    other, other_names = np.roll(d, -1, axis=1), np.roll(names, -1, axis=1)
    with np.errstate(invalid="ignore"):
        step = np.abs(other - d)
        edge = np.isfinite(step) & (step > 0.1) & (step < 2.0) & (rng.random(shape, dtype=np.float32) < probability)
    rows = np.nonzero(edge)
    share = rng.random(len(rows[0]), dtype=np.float32) * np.float32(0.95)
    mixed, mixed_names = d.copy(), names.copy()
    mixed[rows] += share * (other[rows] - d[rows])
    mixed_names[rows] = np.where(share < 0.5, names[rows], other_names[rows])
    return mixed.ravel(), mixed_names.ravel()


def _intensity(lidar: Lidar, brightness: Float32, distance: Float32, noise: Noise, rng: Rng) -> Float32:
    """(N,) intensity in the sensor's scale. The optics are out of focus nearby, so the signal saturates below 2 m."""
    value = brightness * 4 / (distance**2 + 2.0) if lidar.intensity == "signal" else brightness**0.8
    value = value * lidar.intensity_scale * noise.intensity_scale
    value = value * (1 + 0.1 * rng.standard_normal(len(value), dtype=np.float32)) + rng.uniform(0, 2, len(value))
    top = 65535 if lidar.intensity == "signal" else 255
    return np.clip(np.round(value), 0, top).astype(np.float32)


def fixed_pose(T: Transform) -> Callable[[Float64], Transform]:
    """Constant pose of a lidar that stands still."""
    return lambda times: np.broadcast_to(T, (len(times), 4, 4))
