"""A robot with a lidar and a camera in a simulated building: any scan, any image, and the truth, by number."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.geometry.calibration import CalibratedCamera, CalibratedLidar, Calibration
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.simulation.building import Building, make_building
from cmp_seg_ros.simulation.camera import Image, Renderer
from cmp_seg_ros.simulation.generate import rotation
from cmp_seg_ros.simulation.lidar import Lidar, Noise, Sweep, sweep
from cmp_seg_ros.simulation.people import Person, people_mesh
from cmp_seg_ros.simulation.raycast import Scene
from cmp_seg_ros.simulation.trajectory import Kind, Trajectory, plan

Transform = npt.NDArray[np.float64]

LIDAR_HEIGHT = 0.9  # metres above the base
CAMERA_PLACE = (0.1, 0.0, LIDAR_HEIGHT - 0.08)  # in the base's frame
CAMERA_PITCH = np.radians(5)  # downwards
CAMERA_DELAY = 0.02  # seconds from the start of a sweep to its image
OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # base axes of a camera that looks ahead

PINHOLE = Camera(
    model="pinhole",
    intrinsics=(420.0, 420.0, 319.5, 239.5),
    distortion=[-0.06, 0.01, 0.0002, -0.0003],
    width=640,
    height=480,
)


@dataclass(frozen=True)
class RigConfig:
    """What decides a recording, bit by bit.

    Args:
        seed: of the building, the way and the noise.
        sensor: name of the lidar, or a YAML file.
        seconds: how long.
        rate: scans and images a second; None takes the lidar's own.
        motion: how the robot moves.
        roll, pitch: degrees by which the lidar is mounted off level; 180 is upside down.
        camera: the camera's model.
    """

    seed: int
    sensor: str = "os1-16"
    seconds: float = 20.0
    rate: float | None = None
    motion: Kind = "wheeled"
    roll: float = 0.0
    pitch: float = 0.0
    camera: Camera = field(default_factory=lambda: PINHOLE)


class Rig:
    """The robot of a configuration. Scan i starts at i / rate seconds, image i is taken a little later."""

    def __init__(self, config: RigConfig) -> None:
        self.config = config
        lidar = Lidar.load(config.sensor)
        self.lidar = lidar.model_copy(update={"rate": config.rate}) if config.rate else lidar
        self.building: Building = make_building(config.seed)
        self.trajectory: Trajectory = plan(
            self.building, np.random.default_rng([config.seed, 3]), config.seconds, config.motion
        )
        self.noise = replace(Noise(), unit=config.seed)
        self.T_base_lidar = rotation(np.radians(config.roll), np.radians(config.pitch), 0.0)
        self.T_base_lidar[2, 3] = LIDAR_HEIGHT
        self.T_base_camera = np.eye(4)
        self.T_base_camera[:3, :3] = rotation(0.0, CAMERA_PITCH, 0.0)[:3, :3] @ OPTICAL
        self.T_base_camera[:3, 3] = CAMERA_PLACE
        self.people = self._out_of_the_way(self.building.people)
        self._still = Scene(self.building.mesh)

    @property
    def frames(self) -> int:
        """Number of scans, and of images."""
        return max(1, round(self.config.seconds * self.lidar.rate))

    def scan_time(self, index: int) -> float:
        """Seconds from the start of the recording to the start of the sweep."""
        return index / self.lidar.rate

    def image_time(self, index: int) -> float:
        return self.scan_time(index) + CAMERA_DELAY

    def scan(self, index: int, stamp: int = 0) -> Sweep:
        """Sweep `index` with its truth; `stamp` in nanoseconds is passed on."""
        start = self.scan_time(index)
        rng = np.random.default_rng([self.config.seed, 5, index])
        return sweep(
            self.lidar,
            self.scenes(start),
            lambda times: self.trajectory.pose(start + times) @ self.T_base_lidar,
            rng,
            self.noise,
            stamp,
        )

    def image(self, index: int) -> Image:
        """Image `index` with its truth."""
        time = self.image_time(index)
        pose = self.trajectory.pose(np.array([time]))[0] @ self.T_base_camera
        return self._renderer.render(self.scenes(time), pose, np.random.default_rng([self.config.seed, 6, index]))

    def calibration(self) -> Calibration:
        """The calibration file of this robot, intensity statistics of its first scans included."""
        intensity = [s.scan.intensity[s.scan.valid()] for s in map(self.scan, range(min(10, self.frames)))]  # type: ignore[index]
        values = np.concatenate(intensity)
        lidar = CalibratedLidar(
            T_base_lidar=self.T_base_lidar.tolist(),
            stamp="start",
            intensity_mean=round(float(values.mean()), 3) if len(values) else None,
            intensity_std=round(max(float(values.std()), 1e-3), 3) if len(values) else None,
        )
        T_camera_lidar = np.linalg.inv(self.T_base_camera) @ self.T_base_lidar
        camera = CalibratedCamera(
            **self.config.camera.model_dump(),
            T_camera_lidar=T_camera_lidar.round(9).tolist(),
            T_base_camera=self.T_base_camera.round(9).tolist(),
        )
        return Calibration(cameras={"camera": camera}, lidars={"lidar": lidar})

    @cached_property
    def _renderer(self) -> Renderer:
        return Renderer(self.config.camera, self.building)

    def scenes(self, time: float) -> list[Scene]:
        """What stands, and what moves as it is at `time` seconds."""
        return [self._still, Scene(people_mesh(self.people, time))]

    def _out_of_the_way(self, people: list[Person]) -> list[Person]:
        """Those who never come closer than half a metre to the robot: nobody walks through a lidar."""
        times = np.arange(0, self.config.seconds + 1, 0.1)
        robot = self.trajectory.pose(times)[:, :2, 3]
        kept = []
        for person in people:
            there = np.array([person.at(float(t))[0] for t in times])
            if np.hypot(*(there - robot).T).min() > 0.5:
                kept.append(person)
        return kept
