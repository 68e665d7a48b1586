"""NTU-VIRAL (Nguyen et al., IJRR 2022): ROS 1 bags of a drone with two OS1-16 and two monochrome cameras.

The body's z points down, as does that of the horizontal lidar. A scan is stamped at the end of its sweep, with jitter:
here scans are spaced evenly again, as the set's own restamp.py does it. Calibration: as in the files of the set
(camera_left.yaml, lidar_horz.yaml, ...; the numbers are those of FAST-LIVO's and VINS-Fusion's configurations, which
agree). Of the vertical lidar two heights are published, 4 cm apart: take it for itself, not with the cameras.
"""

from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.datasets.preset import PublishedBag
from cmp_seg_ros.geometry.calibration import CalibratedCamera, CalibratedLidar, Calibration

SWEEP = 0.1  # seconds
JUMP = 0.02  # seconds between two stamps that are no jitter any more
T_base_body = np.diag([1.0, -1.0, -1.0, 1.0])  # half a turn about x: z up
T_body_lidar = {
    "horizontal": ((1, 0, 0, -0.05), (0, 1, 0, 0), (0, 0, 1, 0.055), (0, 0, 0, 1)),
    "vertical": ((-1, 0, 0, -0.55), (0, 0, 1, 0.03), (0, 1, 0, 0.09), (0, 0, 0, 1)),
}
CAMERAS = {  # fx, fy, cx, cy; k1, k2, p1, p2; T_body_camera
    "left": (
        (425.0258563372763, 426.7976260903337, 386.0151866550880, 241.9130336743440),
        (-0.288105327549552, 0.074578284234601, 7.784489598138802e-4, -2.277853975035461e-4),
        (
            (0.02183084, -0.01312053, 0.99967558, 0.00552943),
            (0.99975965, 0.00230088, -0.02180248, -0.12431302),
            (-0.00201407, 0.99991127, 0.01316761, 0.01614686),
            (0, 0, 0, 1),
        ),
    ),
    "right": (
        (431.3364265799752, 432.7527965378035, 354.8956286992647, 232.5508916495161),
        (-0.300267420221178, 0.090544063693053, 3.330220891093334e-5, 8.989607188457415e-5),
        (
            (-0.01916508, -0.01496218, 0.99970437, 0.00519443),
            (0.99974371, 0.01176483, 0.01934191, 0.1347802),
            (-0.01205075, 0.99981884, 0.01473287, 0.01465067),
            (0, 0, 0, 1),
        ),
    ),
}


class DataSet(PublishedBag):
    lidars: ClassVar[dict[str, str]] = {"/os1_cloud_node1/points": "horizontal", "/os1_cloud_node2/points": "vertical"}
    signs = (frozenset(("/os1_cloud_node1/points", "/left/image_raw")), frozenset(lidars))

    @classmethod
    def calibration(cls, lidar: str) -> Calibration:
        body_lidar = np.array(T_body_lidar[lidar or "horizontal"], np.float64)
        cameras = {
            name: CalibratedCamera(
                model="pinhole",
                intrinsics=intrinsics,
                distortion=list(coefficients),
                width=752,
                height=480,
                T_camera_lidar=(np.linalg.inv(np.array(body_camera)) @ body_lidar).tolist(),
                T_base_camera=(T_base_body @ np.array(body_camera)).tolist(),
            )
            for name, (intrinsics, coefficients, body_camera) in CAMERAS.items()
        }
        mounted = CalibratedLidar(T_base_lidar=(T_base_body @ body_lidar).tolist(), stamp="end", sweep=SWEEP)
        return Calibration(cameras=cameras, lidars={lidar or "horizontal": mounted})

    def stamp_of(self, number: int, stamp: int) -> int:
        return int(self._even[number])

    @cached_property
    def _even(self) -> npt.NDArray[np.int64]:
        """(M,) stamps of all scans, evenly spaced."""
        stamps = np.array([stamp for _, stamp in self._recorded], np.int64)
        even, starts = evenly_spaced(stamps)
        for scan in starts[1:]:
            self.notes.add(
                f"the clock of {self.path} jumps at scan {scan:06d}: its stamp is "
                f"{(stamps[scan] - stamps[scan - 1]) * 1e-9:.3f} s after that of the scan before"
            )
        off = np.abs(stamps - even).max() * 1e-6
        if off > 1:
            self.notes.add(
                f"stamps of {self.topic} in {self.path} jitter by up to {off:.1f} ms; they were spaced evenly"
            )
        return even


def evenly_spaced(stamps: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], list[int]]:
    """Stamps without their jitter: start + turns x period, by least squares.

    Scans that were dropped leave their gap. Where the clock jumps a new stretch begins, with a start of its own.

    Args:
        stamps: (M,) nanoseconds.

    Returns:
        (M,) nanoseconds, and the first scan of each stretch.
    """
    steps = np.diff(stamps)
    if len(steps) < 2:
        return stamps, [0]
    turns = np.maximum(np.rint(steps / np.median(steps)), 1)
    jumps = np.abs(steps - turns * np.median(steps)) > JUMP * 1e9
    starts = [0, *(np.flatnonzero(jumps) + 1).tolist()]
    stretch = np.concatenate([[0], np.cumsum(jumps)])  # (M,) which one each scan is of
    turn = np.concatenate([[0], np.cumsum(turns)])
    since = (stamps - stamps[starts][stretch]).astype(np.float64)  # small numbers, so that none is rounded
    count = np.bincount(stretch)
    middle, delay = (np.bincount(stretch, values) / count for values in (turn, since))
    turn -= middle[stretch]
    period = (turn * (since - delay[stretch])).sum() / max((turn**2).sum(), 1e-9)
    even = stamps[starts][stretch] + np.rint(delay[stretch] + turn * period).astype(np.int64)
    return even, starts
