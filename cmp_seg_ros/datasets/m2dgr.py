"""M2DGR (Yin et al., RA-L 2022): ROS 1 bags of a ground robot with a VLP-32C and fisheye cameras.

Calibration: calibration_results.txt of github.com/SJTU-ViSYS/M2DGR, where "Extrinsic [to LIDAR]" is T_lidar_camera and
no lens model is named. The four coefficients are taken as Kannala and Brandt's, which the README's and others' use of
them suggests. Which of the topics /camera/third to /camera/sixth is which of the four cameras on the sides and at the
back is not published: only the left and right camera in front, and the D435i's colour image, are used here.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np

from cmp_seg_ros.datasets.preset import PublishedBag
from cmp_seg_ros.geometry.calibration import CalibratedCamera, CalibratedLidar, Calibration
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.geometry.track import rigid

FORWARD = ((0, 0, 1), (-1, 0, 0), (0, -1, 0))  # rotation of T_lidar_camera
FISHEYES = {  # fx, fy, cx, cy; k1 to k4; position in the lidar's frame
    "left": (
        (540.645056202188, 539.8545023658869, 626.4125666883942, 523.947634226782),
        (-0.07015146608431883, 0.008586142263125124, -0.021968993685891842, 0.007442211946112636),
        (0.24221, 0.16123, -0.16711),
    ),
    "right": (
        (540.6832252229977, 539.3921307247979, 632.9173957218305, 503.3766864767991),
        (-0.07147685334620411, 0.006423830171528276, -0.02354604292216998, 0.009181757660952325),
        (0.242013, -0.16025, -0.16724),
    ),
}


class DataSet(PublishedBag):
    lidars: ClassVar[dict[str, str]] = {"/velodyne_points": "velodyne"}
    signs = tuple(
        frozenset(("/velodyne_points", f"/camera/{name}/image_raw/compressed")) for name in ("left", "right", "third")
    )

    def __init__(self, path: Path, topic: str = "", sensors: SensorSet | None = None) -> None:
        super().__init__(path, topic, sensors)
        if "dark" in path.stem:
            self.notes.add(f"{path.name} was recorded in the dark: labels from its images are of no use")

    @classmethod
    def calibration(cls, lidar: str) -> Calibration:
        cameras = {
            name: CalibratedCamera(
                model="equidistant",
                intrinsics=intrinsics,
                distortion=list(coefficients),
                width=1280,
                height=1024,
                T_camera_lidar=_inverse(position),
            )
            for name, (intrinsics, coefficients, position) in FISHEYES.items()
        }
        cameras["color"] = CalibratedCamera(
            model="pinhole",
            intrinsics=(617.971050917033, 616.445131524790, 327.710279392468, 253.976983707814),
            distortion=[0.148000794688248, -0.217835187249065, 0.0, 0.0],
            width=640,
            height=480,
            T_camera_lidar=_inverse((0.30456, 0.00065, 0.65376)),
        )
        return Calibration(cameras=cameras, lidars={"velodyne": CalibratedLidar(T_base_lidar=np.eye(4).tolist())})


def _inverse(position: tuple[float, float, float]) -> list[list[float]]:
    """T_camera_lidar of a camera that looks forward from `position` in the lidar's frame."""
    from scipy.spatial.transform import Rotation

    inverse: list[list[float]] = np.linalg.inv(rigid(Rotation.from_matrix(FORWARD), position)).tolist()
    return inverse
