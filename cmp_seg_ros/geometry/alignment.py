"""How well lidar scans and camera images lie on each other, and the extrinsics that would make them lie better.

Two scores, neither of which needs a target. Edges: points on the near side of a depth edge along a ring lie on image
edges (Levinson and Thrun, "Automatic online calibration of cameras and lasers", RSS 2013). Information: the strength of
a return says something about the brightness of its pixel (Pandey et al., "Automatic targetless extrinsic calibration
of a 3D lidar and camera by maximizing mutual information", AAAI 2012), normalised by the joint entropy. Both are taken
over all views at once, each in units of its deviation over random offsets, and summed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.geometry.calibration import Transform
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.geometry.projection import transform
from cmp_seg_ros.geometry.track import rigid
from cmp_seg_ros.scan import Float32

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

UNIT = np.array([1.0, 1.0, 1.0, 0.1, 0.1, 0.1])  # of an offset: degrees and metres that move a point at 6 m alike
SPREAD = 1.5  # units: deviation of the random offsets
SAMPLES, STARTS = 120, 3
BLURS = 4.0, 1.5  # pixels, coarse and fine
WIDTH = 960  # of the images that are compared; larger ones are reduced
STEP = 0.3  # metres between the two sides of a depth edge
LARGEST_STEP = 2.0  # metres; larger ones weigh no more
TURN = np.radians(1.0)  # neighbours along a ring are closer than this
RING = np.radians(0.15)  # elevations further apart are of two rings
LEVELS = 16  # of intensity and of brightness
POINTS = 30_000  # that the information is taken from, over all views
NEAREST = 0.5  # metres; closer returns are of the robot itself


@dataclass(frozen=True)
class View:
    """A scan and an image of one moment.

    Args:
        xyz: (N, 3) returns in the lidar's frame.
        intensity: (N,), or None.
        ring: (N,) beam of each return, or None to tell it by elevation.
        grey: (H, W) brightness.
    """

    xyz: Float32
    intensity: Float32 | None
    ring: npt.NDArray[np.integer] | None
    grey: Float32


class Alignment:
    """The score of extrinsics over some views.

    Args:
        views: at least one; their images have the camera's size.
        camera: intrinsics.
        T_camera_lidar: (4, 4) roughly; points far out of view for it are left out.
    """

    def __init__(self, views: Sequence[View], camera: Camera, T_camera_lidar: Transform) -> None:
        factor = max(1, round(camera.width / WIDTH))
        self.camera = _reduced(camera, factor)
        grey = np.stack([_mean_of_blocks(view.grey, factor) for view in views])
        parts = [_measured(view, self.camera, T_camera_lidar) for view in views]
        self.xyz = np.concatenate([xyz for xyz, _, _ in parts])
        self.view = np.repeat(np.arange(len(views)), [len(xyz) for xyz, _, _ in parts])
        step = np.concatenate([step for _, step, _ in parts])
        self.edges = np.flatnonzero(step > STEP)
        self.weight = np.sqrt(np.minimum(step[self.edges], LARGEST_STEP))
        self.level: Int64 | None = None
        if all(view.intensity is not None for view in views):
            self.level = _levels(np.concatenate([intensity for _, _, intensity in parts]))
        self.some = np.arange(0, len(self.xyz), max(1, len(self.xyz) // POINTS))
        self._edge_images = [np.stack([_edge_image(image, blur) for image in grey]) for blur in BLURS]
        self._level_images = [np.stack([_level_image(image, blur) for image in grey]) for blur in BLURS]

    def edge_score(self, T_camera_lidar: Transform, sharpness: int = 1) -> float:
        """Mean strength of image edges at the depth edges, over that of all the image; 1 for no relation."""
        pixels, inside = self._pixels(T_camera_lidar, self.edges)
        weight = self.weight[inside]
        return float((self._edge_images[sharpness][pixels] * weight).sum() / max(weight.sum(), 1e-9))

    def information(self, T_camera_lidar: Transform, sharpness: int = 1) -> float:
        """Mutual information of intensity and brightness over their joint entropy, 0..1; 0 without intensities."""
        if self.level is None:
            return 0.0
        pixels, inside = self._pixels(T_camera_lidar, self.some)
        pairs = self.level[self.some[inside]] * LEVELS + self._level_images[sharpness][pixels]
        joint = np.bincount(pairs, minlength=LEVELS**2).reshape(LEVELS, LEVELS) / max(1, len(pairs))
        h_joint, h_intensity, h_brightness = map(_entropy, (joint, joint.sum(axis=1), joint.sum(axis=0)))
        return (h_intensity + h_brightness - h_joint) / h_joint if h_joint > 0 else 0.0

    def _pixels(
        self, T_camera_lidar: Transform, rows: Int64
    ) -> tuple[tuple[Int64, Int64, Int64], npt.NDArray[np.bool_]]:
        """View, row and column of the points that are in their images, and which these are of `rows`."""
        uv, inside = self.camera.project(transform(T_camera_lidar, self.xyz[rows]))
        column, row = np.rint(uv[inside]).astype(np.int64).T
        return (self.view[rows[inside]], row, column), inside


@dataclass(frozen=True)
class Found:
    """The best extrinsics.

    Args:
        T_camera_lidar: (4, 4).
        before, after: score of the given extrinsics and of these, in deviations over random offsets.
    """

    T_camera_lidar: Transform
    before: float
    after: float


def refine(alignment: Alignment, T_camera_lidar: Transform) -> Found:
    """Search the extrinsics of the highest score around the given ones: within some 4 degrees and 40 cm."""
    rng = np.random.default_rng(0)
    offsets = np.concatenate([np.zeros((1, 6)), rng.normal(0, SPREAD, (SAMPLES, 6))])
    score, values = _score(alignment, T_camera_lidar, offsets, sharpness=0)
    best = [_climb(score, offsets[i], size=0.7, steps=150) for i in np.argsort(-values)[:STARTS]]
    end = _climb(score, max(best, key=score), size=0.7, steps=200)  # out of the valley in which a simplex got stuck
    score, _ = _score(alignment, T_camera_lidar, offsets, sharpness=1)
    for size in (0.5, 0.3):
        end = _climb(score, end, size, steps=200)
    return Found(offset_by(T_camera_lidar, end), score(np.zeros(6)), score(end))


def offset_by(T_camera_lidar: Transform, offset: Float64) -> Transform:
    """Extrinsics turned and shifted in the camera's frame by (6,) an offset in UNITs: rotation vector, translation."""
    from scipy.spatial.transform import Rotation

    degrees, shift = np.split(offset * UNIT, 2)
    return rigid(Rotation.from_rotvec(np.radians(degrees)), shift) @ T_camera_lidar


def difference(T_camera_lidar: Transform, other: Transform) -> tuple[Float64, Float64]:
    """(3,) degrees about, and (3,) metres along, the camera's axes that turn the first extrinsics into the other."""
    from scipy.spatial.transform import Rotation

    T = np.asarray(other) @ np.linalg.inv(T_camera_lidar)
    return np.degrees(Rotation.from_matrix(T[:3, :3]).as_rotvec()), np.asarray(T[:3, 3])


def _score(
    alignment: Alignment, T: Transform, offsets: Float64, sharpness: int
) -> tuple[Callable[[Float64], float], Float64]:
    """The score of an offset, and its (K,) values for K offsets, over which it has mean 0."""

    def parts(offset: Float64) -> Float64:
        moved = offset_by(T, offset)
        return np.array([alignment.edge_score(moved, sharpness), alignment.information(moved, sharpness)])

    table = np.array([parts(offset) for offset in offsets])  # (K, 2)
    mean, deviation = table.mean(axis=0), table.std(axis=0)
    deviation[deviation == 0] = np.inf  # a score that says nothing
    return lambda offset: float(((parts(offset) - mean) / deviation).sum()), ((table - mean) / deviation).sum(axis=1)


def _climb(score: Callable[[Float64], float], start: Float64, size: float, steps: int) -> Float64:
    from scipy.optimize import minimize

    simplex = start + size * np.concatenate([np.zeros((1, 6)), np.eye(6)])
    options = {"initial_simplex": simplex, "maxfev": steps, "xatol": 0.01, "fatol": 0.003}
    return np.asarray(minimize(lambda offset: -score(offset), start, method="Nelder-Mead", options=options).x)


def _measured(view: View, camera: Camera, T: Transform) -> tuple[Float32, Float64, Float32]:
    """(M, 3) points in or near the view, (M,) metres of the depth edge that they are on, (M,) their intensity."""
    step = depth_steps(view.xyz, view.ring if view.ring is not None else rings(view.xyz))
    points = transform(T, view.xyz)
    distance = np.linalg.norm(points, axis=1)
    kept = (points[:, 2] > distance * np.cos(camera.half_angle)) & (np.linalg.norm(view.xyz, axis=1) > NEAREST)
    intensity = np.zeros(len(kept), np.float32) if view.intensity is None else view.intensity
    return view.xyz[kept], step[kept], intensity[kept]


def rings(xyz: Float32) -> Int64:
    """(N,) number of the ring of each return, lowest first: those whose elevations follow without a gap."""
    elevation = np.arctan2(xyz[:, 2], np.hypot(xyz[:, 0], xyz[:, 1]))
    order = np.argsort(elevation)
    ring = np.zeros(len(xyz), np.int64)
    ring[order[1:]] = np.cumsum(np.diff(elevation[order]) > RING)
    return ring


def depth_steps(xyz: Float32, ring: npt.NDArray[np.integer]) -> Float64:
    """(N,) how much further one of its two neighbours along the ring is than a return, metres; 0 on a surface."""
    azimuth, reach = np.arctan2(xyz[:, 1], xyz[:, 0]), np.linalg.norm(xyz, axis=1)
    order = np.lexsort((azimuth, ring))
    joined = (np.diff(ring[order]) == 0) & (np.diff(azimuth[order]) < TURN)
    rise = np.where(joined, np.diff(reach[order]), 0.0)
    step = np.zeros(len(xyz))
    step[order[:-1]] = np.maximum(rise, 0)
    step[order[1:]] = np.maximum(step[order[1:]], -rise)
    return step


def _levels(values: Float32) -> Int64:
    """(N,) 0..LEVELS-1 by rank, so that each level has as many values."""
    return np.asarray(np.argsort(np.argsort(values)) * LEVELS // len(values))


def _edge_image(grey: Float32, blur: float) -> Float32:
    """(H, W) strength of edges, strong ones alike, with mean 1."""
    from scipy.ndimage import gaussian_filter

    strength = np.hypot(gaussian_filter(grey, 1.0, order=(0, 1)), gaussian_filter(grey, 1.0, order=(1, 0)))
    strength = np.minimum(strength, np.quantile(strength[::4, ::4], 0.9))
    blurred = gaussian_filter(strength, blur)
    return np.asarray(blurred / max(float(blurred.mean()), 1e-6), np.float32)


def _level_image(grey: Float32, blur: float) -> npt.NDArray[np.uint8]:
    """(H, W) brightness as levels, each of as many pixels."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(grey, blur)
    limits = np.quantile(smooth[::4, ::4], np.linspace(0, 1, LEVELS + 1)[1:-1])
    return np.searchsorted(limits, smooth).astype(np.uint8)


def _entropy(share: Float64) -> float:
    some = share[share > 0]
    return float(-(some * np.log(some)).sum())


def _reduced(camera: Camera, factor: int) -> Camera:
    """The camera of an image whose blocks of factor x factor pixels became one."""
    fx, fy, cx, cy = camera.intrinsics
    centre = (factor - 1) / 2
    return Camera(
        model=camera.model,
        intrinsics=(fx / factor, fy / factor, (cx - centre) / factor, (cy - centre) / factor),
        distortion=camera.distortion,
        xi=camera.xi,
        width=camera.width // factor,
        height=camera.height // factor,
    )


def _mean_of_blocks(grey: Float32, factor: int) -> Float32:
    height, width = grey.shape[0] // factor, grey.shape[1] // factor
    blocks = grey[: height * factor, : width * factor].reshape(height, factor, width, factor)
    return blocks.mean(axis=(1, 3), dtype=np.float32)
