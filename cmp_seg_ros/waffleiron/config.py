"""Configuration of the network and of its preprocessing."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, model_validator

Feature = Literal["intensity", "xyz", "radius", "height", "constant"]
Plane = Literal["xy", "xz", "yz"]

FEATURE_SIZE: dict[Feature, int] = {"intensity": 1, "xyz": 3, "radius": 1, "height": 1, "constant": 1}
PLANE_AXES: dict[Plane, tuple[int, int]] = {"xy": (0, 1), "xz": (0, 2), "yz": (1, 2)}


class NetworkConfig(BaseModel):
    """Architecture. Heads: linear (WaffleIron, ScaLR distilled), mlp (ScaLR+ distilled), probe (both downstream)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    inputs: int = Field(default=5, gt=0)
    width: int = Field(default=256, gt=0)
    depth: int = Field(default=24, gt=0)
    outputs: int = Field(gt=0)
    planes: int = Field(default=3, gt=0)  # layer d works on plane d mod planes
    norm: Literal["batchnorm", "layernorm"] = "batchnorm"
    activation: Literal["relu", "gelu"] = "relu"
    head: Literal["linear", "mlp", "probe"] = "linear"
    head_hidden: int = 2048  # mlp only
    drop_path: float = Field(default=0.0, ge=0, lt=1)


class PreprocessConfig(BaseModel):
    """Preprocessing of points to the network's input. Lengths in metres, in the gravity-aligned frame of the lidar."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: list[Feature] = ["intensity", "xyz", "radius"]
    voxel_size: FiniteFloat = Field(default=0.1, ge=0.001)
    voxel_origin: Literal["minimum", "lidar"] = "minimum"  # (of the cloud): as published
    neighbours: int = Field(default=16, gt=0)
    fov_min: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    fov_max: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    planes: list[Plane] = ["xy", "xz", "yz"]
    grids: list[tuple[PositiveInt, PositiveInt]]  # cells along the plane's two axes

    @model_validator(mode="after")
    def _consistent(self) -> "PreprocessConfig":
        if len(self.planes) != len(self.grids):
            raise ValueError(f"{len(self.planes)} planes but {len(self.grids)} grids")
        if any(low >= high for low, high in zip(self.fov_min, self.fov_max, strict=True)):
            raise ValueError("fov_min must be below fov_max on every axis")
        return self

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return sum(FEATURE_SIZE[name] for name in self.features)
