"""ITLP-Campus Indoor (OPR-Project, CC BY 4.0): a VLP-16 and two cameras on a robot, with poses and masks of classes.

    TRACK.csv's columns: front_cam_ts, back_cam_ts, lidar_ts, tx ty tz qx qy qz qw; floor and track in the joint set
    [TRACK/][floor_N/]lidar/TS.bin          (N, 4) float32: x, y, z, intensity
    [TRACK/][floor_N/]front_cam/TS.png      1280 x 720, and back_cam/
    [TRACK/][floor_N/]masks/front_cam/TS.png    ids of ADE20K's 150 classes

Layout and calibration: github.com/OPR-Project/OpenPlaceRecognition, src/opr/datasets/itlp.py (its lidar2front and
lidar2back are T_camera_lidar; the pictures are rectified). Poses are taken as those of the lidar.
"""

import csv
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros.datasets.base import DataSet as BaseDataSet
from cmp_seg_ros.datasets.base import read_bytes, read_picture
from cmp_seg_ros.datasets.frame import CameraImage, Frame
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import CalibratedCamera, CalibratedLidar, Calibration
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.geometry.track import Track
from cmp_seg_ros.scan import Scan

TABLE = "track.csv"
POSE = ("tx", "ty", "tz", "qx", "qy", "qz", "qw")
COLUMNS = ("lidar_ts", "front_cam_ts", "back_cam_ts", *POSE)
CAMERAS = {  # fx, fy, cx, cy; T_camera_lidar
    "front_cam": (
        (683.6199340820312, 683.6199340820312, 615.1160278320312, 345.32354736328125),
        (
            (0.01509615, -0.99976457, -0.01558544, 0.04632156),
            (0.00871086, 0.01571812, -0.99983852, -0.13278588),
            (0.9998481, 0.01495794, 0.0089461, -0.06092749),
            (0, 0, 0, 1),
        ),
    ),
    "back_cam": (
        (910.4178466796875, 910.4166870117188, 648.44140625, 354.0118408203125),
        (
            (-1.50409674e-02, 9.99886421e-01, 9.55906151e-04, 1.82703304e-02),
            (-1.30440106e-02, 7.59716299e-04, -9.99914635e-01, -1.41787545e-01),
            (-9.99801792e-01, -1.50521522e-02, 1.30311022e-02, -6.72336358e-02),
            (0, 0, 0, 1),
        ),
    ),
}


class DataSet(BaseDataSet):
    """The rows of a track.csv; keys are [TRACK/][floor_N/]LIDAR_TS."""

    seeks = True

    def __init__(self, path: Path, topic: str = "", sensors: SensorSet | None = None) -> None:
        if sensors is None or sensors.file is None:
            sensors = SensorSet(calibration=calibration())
        super().__init__(path, topic, sensors)
        self.rows = self._read(path / TABLE)
        self.count = len(self.rows)
        poses: dict[Path, dict[int, tuple[float, ...]]] = {}
        for row in self.rows:
            found = poses.setdefault(self._folder(row), {})
            found[nanoseconds(row["lidar_ts"])] = tuple(float(row[name]) for name in POSE)
        self._tracks = {folder: Track(found) for folder, found in poses.items()}

    @classmethod
    def recognises(cls, path: Path) -> bool:
        try:
            with (path / TABLE).open(newline="") as file:
                return set(COLUMNS) <= set(next(csv.reader(file), []))
        except (OSError, UnicodeDecodeError):
            return False

    def frame_at(self, number: int) -> Frame:
        row = self.rows[number]
        folder, stamp = self._folder(row), nanoseconds(row["lidar_ts"])
        name = folder.relative_to(self.path).as_posix()
        points = self._points(folder / "lidar" / f"{row['lidar_ts']}.bin")
        return Frame(
            row["lidar_ts"] if name == "." else f"{name}/{row['lidar_ts']}",
            Scan(points[:, :3], points[:, 3], stamp=stamp, frame_id="lidar"),
            number,
            images=self._images(folder, row),
            T_base_lidar=self.sensors.T_base_lidar,
            locate=self._tracks[folder].at,
            sequence=str(folder),
            group=name,
        )

    def _images(self, folder: Path, row: dict[str, str]) -> dict[str, CameraImage]:
        images = {}
        for name, camera in self.sensors.calibration.cameras.items():
            picture = folder / name / f"{row[f'{name}_ts']}.png"
            if picture.is_file():
                stamp = nanoseconds(row[f"{name}_ts"])
                images[name] = CameraImage(stamp, partial(read_picture, picture), camera)
            else:
                self.problems.add(f"{picture}, which {TABLE} names, is missing", name)
        return images

    def _folder(self, row: dict[str, str]) -> Path:
        return self.path / row.get("track", "") / (f"floor_{row['floor']}" if row.get("floor") else "")

    @staticmethod
    def _points(path: Path) -> Any:
        """(N, 4). Raises UserError."""
        try:
            return np.frombuffer(read_bytes(path), "<f4").reshape(-1, 4)
        except ValueError as error:
            raise UserError(f"{path} is cut short: it holds no whole points of four float32; copy it again") from error

    @staticmethod
    def _read(path: Path) -> list[dict[str, str]]:
        """Raises UserError."""
        try:
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            for row in rows:
                [float(row[name]) for name in COLUMNS]
        except (OSError, LookupError, TypeError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error!r}); copy it again") from error
        if not rows:
            raise UserError(f"{path} has no rows; copy it again")
        return rows


def nanoseconds(text: str) -> int:
    """A time of a file's name, in whichever unit since 1970 makes it a year of this century."""
    number = Decimal(text)
    while 0 < number < 10**18:
        number *= 1000
    return int(number)


def calibration() -> Calibration:
    """That of the robot; nobody says how high the lidar stands."""
    cameras = {
        name: CalibratedCamera(
            model="pinhole",
            intrinsics=intrinsics,
            width=1280,
            height=720,
            T_camera_lidar=[list(row) for row in T_camera_lidar],
        )
        for name, (intrinsics, T_camera_lidar) in CAMERAS.items()
    }
    return Calibration(cameras=cameras, lidars={"velodyne": CalibratedLidar(T_base_lidar=np.eye(4).tolist())})
