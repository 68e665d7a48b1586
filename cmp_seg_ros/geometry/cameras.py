"""Camera models: pinhole with radial-tangential distortion, equidistant (Kannala-Brandt), unified (Mei)."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cmp_seg_ros.scan import Bool, Float32


class Camera(BaseModel):
    """Intrinsics of one camera. `project` and `unproject` follow in this file (being written)."""

    model_config = ConfigDict(extra="forbid")

    model: Literal["pinhole", "equidistant", "mei"]
    intrinsics: tuple[float, float, float, float]  # fx, fy, cx, cy in pixels
    distortion: list[float] = []  # pinhole: k1 k2 p1 p2 [k3]; equidistant: k1 k2 k3 k4; mei: k1 k2 p1 p2
    xi: float = 0.0  # mei only
    width: int = Field(gt=0)
    height: int = Field(gt=0)

    def project(self, xyz: Float32) -> tuple[Float32, Bool]:
        """(N, 3) points in the camera's frame -> (N, 2) pixels (u, v) and (N,) whether the point is in the image."""
        raise NotImplementedError

    def unproject(self, uv: Float32) -> Float32:
        """(M, 2) pixels -> (M, 3) unit rays in the camera's frame."""
        raise NotImplementedError
