"""Camera models: pinhole with radial-tangential distortion, equidistant (Kannala-Brandt), unified (Mei).

Camera frames are optical (z forward, x right, y down). The centre of the top left pixel is (0, 0), as in OpenCV.

Each model maps a direction to a point of a plane and distorts that point by a radial polynomial, which is valid only
while it increases: beyond its first turning point two directions share a pixel. Such directions count as outside.
"""

from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
from numpy.polynomial.polynomial import polyder, polyroots, polyval
from pydantic import ConfigDict, Field, model_validator

from cmp_seg_ros.configuration import KnownFields
from cmp_seg_ros.scan import Bool, Float32

Float64 = npt.NDArray[np.float64]

COEFFICIENTS = {"pinhole": (0, 4, 5), "equidistant": (0, 4), "mei": (0, 4)}  # valid numbers of distortion coefficients
NEWTON_STEPS = 8
TABLE_SIZE = 1024
AROUND = 0.1  # of the image's size: still close to it


class Camera(KnownFields):
    """Intrinsics of one camera."""

    model_config = ConfigDict(ignored_types=(cached_property,))

    model: Literal["pinhole", "equidistant", "mei"]
    intrinsics: tuple[float, float, float, float]  # fx, fy, cx, cy in pixels
    distortion: list[float] = Field(default=[])  # pinhole: k1 k2 p1 p2 [k3]; equidistant: k1 k2 k3 k4; mei: k1 k2 p1 p2
    xi: float = 0.0  # mei only
    width: int = Field(gt=0)
    height: int = Field(gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> "Camera":
        numbers = [*self.intrinsics, *self.distortion, self.xi]
        if not np.isfinite(numbers).all():
            raise ValueError("intrinsics, distortion and xi must be finite")
        if min(self.intrinsics[:2]) <= 0:
            raise ValueError(f"focal lengths must be positive pixels, not {self.intrinsics[:2]}")
        if len(self.distortion) not in COEFFICIENTS[self.model]:
            allowed = " or ".join(map(str, COEFFICIENTS[self.model]))
            raise ValueError(f"model {self.model} has {allowed} distortion coefficients, not {len(self.distortion)}")
        if self.xi < 0:
            raise ValueError(f"xi must not be negative, it is {self.xi}")
        return self

    def project(self, xyz: Float32) -> tuple[Float32, Bool]:
        """Project points into the image.

        Args:
            xyz: (N, 3) points in the camera's frame, metres.

        Returns:
            (N, 2) pixels (u, v), NaN where the model does not hold (behind the camera, beyond the monotone range of the
            distortion), and (N,) whether the pixel is in the image: 0 <= u <= width - 1, 0 <= v <= height - 1, so that
            rounding gives a pixel and all four neighbours of a fraction exist.
        """
        points = np.asarray(xyz, dtype=np.float64)
        with np.errstate(all="ignore"):  # division by zero where the model does not hold
            plane, holds = self._to_plane(points)
            holds &= self._one_to_one(plane)
            distorted = self._distort(plane)
            fx, fy, cx, cy = self.intrinsics
            uv = (distorted * (fx, fy) + (cx, cy)).astype(np.float32)
            uv[~holds] = np.nan
            u, v = uv.T  # by columns: numpy is slow along rows of two
            inside = (u >= 0) & (u <= self.width - 1) & (v >= 0) & (v <= self.height - 1)
        return uv, inside

    def unproject(self, uv: Float32) -> Float32:
        """(M, 2) pixels (u, v) -> (M, 3) unit rays in the camera's frame; NaN where no direction reaches the pixel."""
        fx, fy, cx, cy = self.intrinsics
        plane = self._undistort((np.asarray(uv, dtype=np.float64) - (cx, cy)) / (fx, fy))
        radius = np.hypot(plane[:, 0], plane[:, 1])
        with np.errstate(all="ignore"):  # pixels that no direction reaches
            if self.model == "pinhole":
                rays = np.column_stack([plane, np.ones_like(radius)])
            elif self.model == "equidistant":  # the radius in the plane is the angle from the axis
                rays = np.column_stack([plane * np.sinc(radius / np.pi)[:, None], np.cos(radius)])
            else:  # Mei and Rives (ICRA 2007): from the plane back to the unit sphere
                square = radius**2
                eta = (self.xi + np.sqrt(1 + (1 - self.xi**2) * square)) / (1 + square)
                rays = np.column_stack([plane * eta[:, None], eta - self.xi])
            rays /= np.linalg.norm(rays, axis=1, keepdims=True)
            return np.where(self._one_to_one(plane)[:, None], rays, np.nan).astype(np.float32)

    @classmethod
    def centred(cls, focal: float, size: tuple[int, int]) -> "Camera":
        """A pinhole camera whose axis meets the middle of its image of (height, width) pixels."""
        height, width = size
        intrinsics = focal, focal, (width - 1) / 2, (height - 1) / 2
        return cls(model="pinhole", intrinsics=intrinsics, width=width, height=height)

    def rays(self) -> Float32:
        """(H W, 3) unit directions through all pixels, row by row; as `unproject`."""
        v, u = np.mgrid[0 : self.height, 0 : self.width].astype(np.float32)
        return self.unproject(np.stack([u.ravel(), v.ravel()], axis=1))

    @property
    def pixels_per_radian(self) -> Float64:
        """(2,) along u and v, at the principal point."""
        return np.array(self.intrinsics[:2]) / (1 + self.xi)

    @cached_property
    def half_angle(self) -> float:
        """Angle from the optical axis, radians, within which the image lies and what is close around it."""
        u, v = (np.linspace(-AROUND, 1 + AROUND, 65) * size for size in (self.width, self.height))
        rays = self.unproject(np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2).astype(np.float32))
        return float(np.arccos(np.nanmin(rays[:, 2], initial=1.0)))

    def _to_plane(self, points: Float64) -> tuple[Float64, Bool]:
        """(N, 3) points -> (N, 2) undistorted coordinates in the model's plane, (N,) whether the model holds."""
        xy, z = points[:, :2], points[:, 2]
        if self.model == "pinhole":
            return xy / z[:, None], np.asarray(z > 0)
        if self.model == "equidistant":
            across = np.hypot(xy[:, 0], xy[:, 1])
            angle = np.arctan2(across, z)
            scale = np.divide(angle, across, out=np.zeros_like(angle), where=across > 0)
            return xy * scale[:, None], np.asarray(np.isfinite(across + z) & ((across > 0) | (z != 0)))
        sphere = points / np.linalg.norm(points, axis=1, keepdims=True)
        edge = self.xi if self.xi <= 1 else 1 / self.xi  # beyond it two directions share a point of the plane
        return sphere[:, :2] / (sphere[:, 2:] + self.xi), np.asarray(sphere[:, 2] > -edge)

    @cached_property
    def _radial(self) -> Float64:
        """Coefficients c of the radial polynomial r (1 + c1 r^2 + c2 r^4 + ...)."""
        k = self.distortion
        return np.array([1.0, *(k if self.model == "equidistant" else [*k[:2], *k[4:]])])

    @cached_property
    def _tangential(self) -> tuple[float, float]:
        if self.model == "equidistant" or not self.distortion:
            return 0.0, 0.0
        return self.distortion[2], self.distortion[3]

    @cached_property
    def _radius_limit(self) -> float:
        """Radius in the undistorted plane up to which the radial polynomial increases; at most pi if it is an angle."""
        slope = self._radial * (2 * np.arange(len(self._radial)) + 1)  # in powers of r^2
        slope[np.abs(slope) < 1e-12] = 0  # below any calibration's accuracy; would only disturb the roots
        roots = polyroots(slope)
        turning = [root.real for root in roots if root.real > 0 and abs(root.imag) < 1e-9 * abs(root)]
        limit = float(np.sqrt(min(turning, default=np.inf)))
        return min(limit, np.pi) if self.model == "equidistant" else limit

    def _distort(self, plane: Float64) -> Float64:
        """(N, 2) undistorted -> (N, 2) distorted coordinates (Brown 1966; Kannala and Brandt, PAMI 2006)."""
        x, y = plane[:, 0], plane[:, 1]
        square = x * x + y * y
        p1, p2 = self._tangential
        stretch = polyval(square, self._radial)
        return np.column_stack(
            [
                x * stretch + 2 * p1 * x * y + p2 * (square + 2 * x * x),
                y * stretch + p1 * (square + 2 * y * y) + 2 * p2 * x * y,
            ]
        )

    def _undistort(self, distorted: Float64) -> Float64:
        """Inverse of `_distort`: radial part from a table, then Newton steps for both parts; NaN without a solution."""
        if not self.distortion:
            return distorted
        target = np.hypot(distorted[:, 0], distorted[:, 1])
        radius = self._invert_radial(target)
        plane = distorted * np.divide(radius, target, out=np.ones_like(target), where=target > 0)[:, None]
        with np.errstate(all="ignore"):  # pixels that no direction reaches diverge
            for _ in range(NEWTON_STEPS):
                plane = plane - self._newton_step(plane, distorted)
            found = np.abs(self._distort(plane) - distorted).max(axis=1) < 1e-6 * (1 + target)
        return np.where(found[:, None], plane, np.nan)

    def _invert_radial(self, target: Float64) -> Float64:
        """(M,) distorted -> (M,) undistorted radius, approximate, at most the limit."""
        reach, end = float(np.max(target, initial=0.0)), 1.0
        while end < self._radius_limit and end * polyval(end**2, self._radial) < reach:
            end *= 2
        radius = np.linspace(0.0, min(end, self._radius_limit), TABLE_SIZE)
        return np.interp(target, radius * polyval(radius**2, self._radial), radius)

    def _newton_step(self, plane: Float64, distorted: Float64) -> Float64:
        """(M, 2) solution d of J d = distort(plane) - distorted."""
        a, b, c = self._jacobian(plane)
        x, y = (self._distort(plane) - distorted).T
        return np.column_stack([c * x - b * y, a * y - b * x]) / (a * c - b * b)[:, None]

    def _jacobian(self, plane: Float64) -> tuple[Float64, Float64, Float64]:
        """(M,) each of a, b, c of the Jacobian [[a, b], [b, c]] of `_distort`."""
        x, y = plane[:, 0], plane[:, 1]
        square = x * x + y * y
        p1, p2 = self._tangential
        stretch, slope = polyval(square, self._radial), polyval(square, polyder(self._radial))
        a = stretch + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
        b = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
        c = stretch + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
        return a, b, c

    def _one_to_one(self, plane: Float64) -> Bool:
        """(N,) whether the distortion is one-to-one at (N, 2) undistorted coordinates.

        The Jacobian is symmetric; where it is positive definite the distortion is the gradient of a convex function.
        """
        a, b, c = self._jacobian(plane)
        return np.asarray((np.hypot(plane[:, 0], plane[:, 1]) < self._radius_limit) & (a > 0) & (a * c > b * b))
