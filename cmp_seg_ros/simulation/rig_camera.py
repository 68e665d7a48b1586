"""Cameras of a simulated robot: model, mounting, and encoding of the images."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cmp_seg_ros import configuration
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.scan import UInt8
from cmp_seg_ros.simulation.generate import rotation
from cmp_seg_ros.simulation.mesh import Transform

FOLDER = "config/cameras"
AHEAD, BELOW = 0.1, 0.08  # metres from the lidar's centre to a camera
# Rotation from optical axes to base axes, for a camera that looks ahead.
OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
RESERVED_NAMES = ("lidar", "truth", "odom", "base_link", "tf")  # other topics and frames of a recording
SPEC = "[NAME=]KIND[,mono][,compressed][,yaw=DEGREES][,pitch=DEGREES]"


@dataclass(frozen=True)
class RigCamera:
    """A camera on a robot.

    Args:
        name: in its topics, its frame and the calibration.
        camera: the model.
        mono: grey images.
        compressed: JPEG images in CompressedImage messages.
        yaw: degrees to the left.
        pitch: degrees downwards.
    """

    name: str = "camera"
    camera: Camera = field(default_factory=lambda: load_camera("pinhole"))
    mono: bool = False
    compressed: bool = False
    yaw: float = 0.0
    pitch: float = 5.0

    @classmethod
    def parse(cls, spec: str) -> "RigCamera":
        """Read `NAME=KIND,option,...`; KIND is a camera of config/cameras or a YAML file. Raises UserError."""
        first, *options = spec.split(",")
        name, equals, kind = first.rpartition("=")
        if equals and (name in RESERVED_NAMES or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name)):
            raise UserError(f"camera '{spec}': '{name}' is reserved or not a valid topic name; write {SPEC}")
        angles = {"yaw": cls.yaw, "pitch": cls.pitch}
        for option in options:
            angle = re.fullmatch(r"(yaw|pitch)=(-?\d+(?:\.\d*)?)", option)
            if angle:
                angles[angle[1]] = float(angle[2])
            elif option not in ("mono", "compressed"):
                raise UserError(f"camera '{spec}': unknown option '{option}'; write {SPEC}")
        return cls(name or cls.name, load_camera(kind), "mono" in options, "compressed" in options, **angles)

    @property
    def encoding(self) -> str:
        return "mono8" if self.mono else "rgb8"

    def pixels(self, rgb: UInt8) -> UInt8:
        """The (H, W, 3) image as it is published: (H, W) for a grey camera."""
        return (rgb @ LUMA + 0.5).astype(np.uint8) if self.mono else rgb

    def T_base_camera(self, lidar_height: float) -> Transform:
        """Pose of the camera: around the lidar's axis, a little below its centre."""
        T = rotation(0.0, float(np.radians(self.pitch)), float(np.radians(self.yaw)))
        T[:3, :3] = T[:3, :3] @ OPTICAL
        yaw = np.radians(self.yaw)
        T[:3, 3] = AHEAD * np.cos(yaw), AHEAD * np.sin(yaw), lidar_height - BELOW
        return T


def load_camera(name_or_path: str | Path) -> Camera:
    """A camera model by its name in config/cameras/, or from a YAML file. Raises UserError."""
    return configuration.load(Camera, FOLDER, "camera", name_or_path)
