"""Calibration files: cameras and lidars by name, with their extrinsics."""

from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import AfterValidator, ConfigDict, Field, model_validator

from cmp_seg_ros import configuration
from cmp_seg_ros.configuration import KnownFields
from cmp_seg_ros.errors import UserError, describe
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.messages import camera_info as camera_info_of_ros

Transform = npt.NDArray[np.float64]
T = TypeVar("T")
C = TypeVar("C", bound="ImageCamera")
File = TypeVar("File", bound="_CalibrationFile[Any]")

STAMPED = {"start": 0.0, "middle": 0.5, "end": 1.0}  # share of a sweep that lies before its stamp
REMEDY = "give a calibration file like the one that `cmp-seg simulate` writes"
LEAST_STD = 1e-4  # of intensities; about 0.1 for sensors with a range of 0 to 1


def _rigid(rows: list[list[float]]) -> list[list[float]]:
    """Check a (4, 4) rigid transform, given as rows. A mirrored or scaled rotation is an error, not corrected."""
    matrix = np.asarray(rows, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise ValueError(f"must be 4 rows of 4 numbers, not {matrix.shape}")
    rotation = matrix[:3, :3]
    if not np.isfinite(matrix).all() or not np.allclose(matrix[3], [0, 0, 0, 1]):
        raise ValueError("must be finite and end in the row 0 0 0 1")
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3):
        raise ValueError("its rotation is not orthonormal (to 1e-3): scaled or mistyped")
    if np.linalg.det(rotation) < 0:
        raise ValueError("its rotation has determinant -1 (a reflection); swap two axes or negate one")
    return rows


RigidTransform = Annotated[list[list[float]], AfterValidator(_rigid)]


class ImageCamera(Camera):
    """A camera and its mounting; its images may be used without a lidar. Its frame is optical: z forward, y down."""

    topic: str | None = None  # of its images in a bag, where the camera's name does not say it
    T_camera_lidar: Any = None  # not checked without a lidar
    T_base_camera: RigidTransform | None = None


class CalibratedCamera(ImageCamera):
    """A camera whose place by the lidar is known, too."""

    T_camera_lidar: RigidTransform

    @model_validator(mode="before")
    @classmethod
    def _is_placed(cls, given: Any) -> Any:
        cls.require_known(given)  # a misspelt T_camera_lidar is called so
        if isinstance(given, dict) and given.get("T_camera_lidar") is None:
            raise ValueError(
                "it has no T_camera_lidar; add its 4 x 4 numbers, which take points from the lidar's frame to the "
                "camera's (z forward, y down), as in docs/recordings.md"
            )
        return given


class CalibratedLidar(KnownFields):
    """A lidar and its mounting on the robot (base: x forward, z up)."""

    model_config = ConfigDict(allow_inf_nan=False)

    T_base_lidar: RigidTransform
    stamp: Literal["start", "middle", "end"] = "start"  # which moment of the sweep the stamp is
    sweep: float | None = Field(default=None, gt=0, le=2)  # seconds of one turn
    time_offset: float = Field(default=0.0, ge=-1e6, le=1e6)  # seconds, added to a stamp to get the cameras' time
    intensity_mean: float | None = None
    intensity_std: float | None = Field(default=None, ge=LEAST_STD)

    @model_validator(mode="after")
    def _consistent(self) -> "CalibratedLidar":
        if (self.intensity_mean is None) != (self.intensity_std is None):
            raise ValueError("give both of intensity_mean and intensity_std, or neither to have them learnt")
        if self.stamp != "start" and self.sweep is None:
            raise ValueError(f"stamp: {self.stamp} needs sweep, the seconds of one turn (0.1 at 10 Hz)")
        return self

    @property
    def before_stamp(self) -> float:
        """Seconds of the sweep that lie before its stamp."""
        return STAMPED[self.stamp] * (self.sweep or 0.0)

    def camera_stamp(self, stamp: int) -> int:
        """The start of the sweep of a scan in the cameras' clock, nanoseconds; 0 if it has no stamp."""
        return stamp + round((self.time_offset - self.before_stamp) * 1e9) if stamp else 0


class _CalibrationFile(KnownFields, Generic[C]):
    """A calibration file, with cameras of a kind."""

    cameras: dict[str, C] = Field(default={})

    @classmethod
    def load(cls: type[File], path: str | Path) -> File:
        """Read a calibration file. Raises UserError naming the file, the field and what is wrong with it."""
        return configuration.read(cls, "calibration file", path, REMEDY)

    def camera(self, name: str = "") -> C:
        """The camera `name`, or the only one. Raises UserError."""
        return _pick(self.cameras, name, "camera")

    @model_validator(mode="before")
    @classmethod
    def _is_no_camera_info(cls, given: Any) -> Any:
        if isinstance(given, dict) and {"camera_matrix", "distortion_model"} & given.keys():
            raise ValueError(
                "it is a camera_info.yaml of ROS, which does not say where the camera is: add T_camera_lidar, 4 x 4 "
                "numbers that take points from the lidar's frame to the camera's (z forward, y down), and write "
                f"instead: {_rewritten(given)}"
            )
        return given


def _rewritten(camera_info: dict[str, Any]) -> str:
    """A camera_info.yaml as a calibration file, with letters for what it does not say; else why it is none.

    It may be a file of camera_calibration_parsers, or a message as `ros2 topic echo` or ROS 1 prints it.
    """
    fields = {name.lower(): value for name, value in camera_info.items()}
    try:
        camera = camera_info_of_ros.decode(
            SimpleNamespace(
                k=fields["k"] if "k" in fields else fields["camera_matrix"]["data"],
                d=fields["d"] if "d" in fields else fields["distortion_coefficients"]["data"],
                distortion_model=fields.get("distortion_model", ""),
                width=fields["width"] if "width" in fields else fields["image_width"],
                height=fields["height"] if "height" in fields else fields["image_height"],
            )
        )
    except (UserError, LookupError, TypeError, ValueError) as error:
        return f"cameras, as in docs/recordings.md ({describe(error)})"
    T_camera_lidar = [["r", "r", "r", "x"], ["r", "r", "r", "y"], ["r", "r", "r", "z"], [0, 0, 0, 1]]
    about = camera.model_dump(mode="json", exclude_defaults=True) | {"T_camera_lidar": T_camera_lidar}
    cameras = {"cameras": {camera_info.get("camera_name", "front"): about}}
    return yaml.safe_dump(cameras, sort_keys=False, default_flow_style=True, width=10**6).strip()


class Calibration(_CalibrationFile[CalibratedCamera]):
    """Calibration of all sensors of a robot."""

    lidars: dict[str, CalibratedLidar] = Field(default={})

    def save(self, path: str | Path) -> None:
        data = self.model_dump(mode="json", exclude_none=True)
        Path(path).write_text(yaml.safe_dump(data, sort_keys=False, default_flow_style=None))

    def lidar(self, name: str = "") -> CalibratedLidar:
        """The lidar `name`, or the only one. Raises UserError."""
        return _pick(self.lidars, name, "lidar")


class ImageCalibration(_CalibrationFile[ImageCamera]):
    """The cameras of a calibration file; a robot without a lidar has only these."""

    lidars: Any = None  # not used, and not checked


def _pick(sensors: dict[str, T], name: str, what: str) -> T:
    if not name and len(sensors) == 1:
        return next(iter(sensors.values()))
    if not name and sensors:
        raise UserError(
            f"the calibration has several {what}s: {', '.join(sensors)}; choose one with {what}_name (node) or --{what}"
        )
    if name not in sensors:
        raise UserError(f"{what} '{name}' is not in the calibration; it has: {', '.join(sensors) or 'none'}")
    return sensors[name]
