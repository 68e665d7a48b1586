"""A robot with a lidar and cameras in a simulated building: scans, images and truth by index."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import CalibratedCamera, CalibratedLidar, Calibration
from cmp_seg_ros.scan import Bool, Float64
from cmp_seg_ros.simulation.building import Building, make_building
from cmp_seg_ros.simulation.camera import Image, Renderer
from cmp_seg_ros.simulation.generate import rotation
from cmp_seg_ros.simulation.lidar import Lidar, Noise, Sweep, sweep
from cmp_seg_ros.simulation.mesh import Transform
from cmp_seg_ros.simulation.people import Person, people_mesh
from cmp_seg_ros.simulation.raycast import Scene, cast_all
from cmp_seg_ros.simulation.rig_camera import RigCamera
from cmp_seg_ros.simulation.scene_folder import load_scene
from cmp_seg_ros.simulation.trajectory import CARRIERS, Kind, Trajectory, plan

CAMERA_DELAY = 0.02  # seconds from the start of a sweep to its images
SEEN, SEEN_RELATIVE = 0.1, 0.02  # metres, and share of the distance, between a point and the surface that a camera sees


@dataclass(frozen=True)
class RigConfig:
    """Configuration of a recording, which determines every bit of it.

    Args:
        seed: of the building (or of the people in the scene), the path and the noise.
        sensor: name of the lidar, or a YAML file.
        seconds: length of the recording.
        rate: scans and images per second; None: the lidar's own rate. At a lower rate the lidar turns at its own rate
            and scans are skipped; at a higher one it turns faster.
        motion: how the robot moves.
        roll, pitch: of the mounted lidar in degrees; roll 180 is upside down.
        cameras: of the robot; they take their images at the same time.
        scene: folder of a furnished scene instead of a generated building.
        height: metres of the lidar above the base, which moves on the floor; None: the carrier's default.

    Raises:
        UserError: a number is not finite, two cameras have one name, or a flying robot is given a height.
    """

    seed: int
    sensor: str = "os1-16"
    seconds: float = 20.0
    rate: float | None = None
    motion: Kind = "wheeled"
    roll: float = 0.0
    pitch: float = 0.0
    cameras: tuple[RigCamera, ...] = field(default_factory=lambda: (RigCamera(),))
    scene: Path | None = None
    height: float | None = None

    def __post_init__(self) -> None:
        for what in ("seconds", "rate", "roll", "pitch", "height"):
            value = getattr(self, what)
            if value is not None and not np.isfinite(value):
                raise UserError(f"--{what} is {value}; give a finite number")
        names = [camera.name for camera in self.cameras]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(
                f"two cameras are named '{twice[0]}'; give them names: --camera left=pinhole --camera right=wide"
            )
        if self.height is not None and self.motion == "flying":
            raise UserError("--height has no effect on a flying robot; leave it out")


class Rig:
    """The robot of a configuration. Scan i starts at i / rate seconds, image i is taken CAMERA_DELAY later."""

    def __init__(self, config: RigConfig) -> None:
        self.config = config
        lidar = Lidar.load(config.sensor)
        self.rate = config.rate or lidar.rate
        self.lidar = lidar.model_copy(update={"rate": max(self.rate, lidar.rate)})
        self.building: Building = load_scene(config.scene, config.seed) if config.scene else make_building(config.seed)
        self.trajectory: Trajectory = plan(
            self.building, np.random.default_rng([config.seed, 3]), config.seconds, config.motion
        )
        self.noise = replace(Noise(), unit=config.seed)
        self.T_base_lidar = rotation(np.radians(config.roll), np.radians(config.pitch), 0.0)
        self.T_base_lidar[2, 3] = CARRIERS[config.motion].mount if config.height is None else config.height
        self.T_base_cameras = [camera.T_base_camera(self.T_base_lidar[2, 3]) for camera in config.cameras]
        self.people = self._out_of_the_way(self.building.people)
        self._still = Scene(self.building.mesh)

    @property
    def frames(self) -> int:
        """Number of scans, and of images."""
        return max(1, round(self.config.seconds * self.rate))

    def scan_time(self, index: int) -> float:
        """Seconds from the start of the recording to the start of the sweep."""
        return index / self.rate

    def image_time(self, index: int) -> float:
        return self.scan_time(index) + CAMERA_DELAY

    def scan(self, index: int, stamp: int = 0) -> Sweep:
        """Sweep `index` with its truth; `stamp` is that of the scan, nanoseconds."""
        start = self.scan_time(index)
        rng = np.random.default_rng([self.config.seed, 5, index])

        def pose(times: Float64) -> Transform:
            return np.asarray(self.trajectory.pose(start + times) @ self.T_base_lidar)

        return sweep(self.lidar, self.scenes(start), pose, rng, self.noise, stamp)

    def image(self, index: int, camera: int = 0) -> Image:
        """Image `index` of a camera, given by its number, with its truth."""
        time, seed = self.image_time(index), [self.config.seed, 6, index, *([camera] if camera else [])]
        pose = self._camera_pose(index, camera)
        return self._renderers[camera].render(self.scenes(time), pose, np.random.default_rng(seed))

    def visible(self, index: int, result: Sweep, camera: int = 0) -> Bool:
        """(N,) which points of sweep `index` a camera sees in its image `index`.

        A point is visible if the first surface in its direction, at the image's time, is its own surface. Panes are
        surfaces; points between two surfaces (mixed pixels) and ghosts in mirrors are never visible.
        """
        scan, model = result.scan, self.config.cameras[camera].camera
        times = np.arange(self.lidar.columns) / (self.lidar.columns * self.lidar.rate)
        poses = self.trajectory.pose(self.scan_time(index) + times) @ self.T_base_lidar  # (W, 4, 4)
        poses = poses[self.lidar.firing.ravel()]  # (N, 4, 4)
        world = np.einsum("nij,nj->ni", poses[:, :3, :3], scan.xyz) + poses[:, :3, 3]
        T_world_camera = self._camera_pose(index, camera)
        toward = world - T_world_camera[:3, 3]
        _, inside = model.project((toward @ T_world_camera[:3, :3]).astype(np.float32))
        rows = np.flatnonzero(inside & scan.valid())
        distance = np.linalg.norm(toward[rows], axis=1)
        directions = (toward[rows] / distance[:, None]).astype(np.float32)
        origins = np.broadcast_to(T_world_camera[:3, 3].astype(np.float32), directions.shape)
        hits = cast_all(self.scenes(self.image_time(index)), origins, directions)
        seen = np.zeros(len(scan), dtype=bool)
        seen[rows] = np.abs(hits.distance - distance) < SEEN + SEEN_RELATIVE * distance
        return seen

    def _camera_pose(self, index: int, camera: int) -> Transform:
        """(4, 4) T_world_camera of image `index`."""
        time = np.array([self.image_time(index)])
        return np.asarray(self.trajectory.pose(time)[0] @ self.T_base_cameras[camera])

    def calibration(self) -> Calibration:
        """The calibration file of this robot, with the intensity statistics of its first scans."""
        intensity = [s.scan.intensity[s.scan.valid()] for s in map(self.scan, range(min(10, self.frames)))]  # type: ignore[index]
        values = np.concatenate(intensity)
        lidar = CalibratedLidar(
            T_base_lidar=self.T_base_lidar.tolist(),
            intensity_mean=round(float(values.mean()), 3) if len(values) else None,
            intensity_std=round(max(float(values.std()), 1e-3), 3) if len(values) else None,
        )
        cameras = {
            camera.name: CalibratedCamera(
                **camera.camera.model_dump(),
                T_camera_lidar=(np.linalg.inv(T_base_camera) @ self.T_base_lidar).round(9).tolist(),
                T_base_camera=T_base_camera.round(9).tolist(),
            )
            for camera, T_base_camera in zip(self.config.cameras, self.T_base_cameras, strict=True)
        }
        return Calibration(cameras=cameras, lidars={"lidar": lidar})

    @cached_property
    def _renderers(self) -> list[Renderer]:
        return [Renderer(camera.camera, self.building) for camera in self.config.cameras]

    def scenes(self, time: float) -> list[Scene]:
        """Static geometry, and dynamic geometry at `time` seconds."""
        return [self._still, Scene(people_mesh(self.people, time))]

    def _out_of_the_way(self, people: list[Person]) -> list[Person]:
        """The people who never come closer than half a metre to the robot, so that none walks through the lidar."""
        times = np.arange(0, self.config.seconds + 1, 0.1)
        robot = self.trajectory.pose(times)[:, :2, 3]
        kept = []
        for person in people:
            there = np.array([person.at(float(t))[0] for t in times])
            if np.hypot(*(there - robot).T).min() > 0.5:
                kept.append(person)
        return kept
