"""The configuration of a training run, as read from a YAML file in config/training/."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cmp_seg_ros import configuration
from cmp_seg_ros.bundle import BundleDescription, IntensityConfig, PointNetwork
from cmp_seg_ros.errors import describe_invalid
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.waffleiron.config import NetworkConfig, PreprocessConfig

FOLDER = "config/training"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(_Strict):
    """Simulated scans. Buildings are seeds: training takes first_building and those after it, and as many of the second
    world (simulation/building.py) as `second_world` says."""

    first_building: int = Field(default=1_000_000, ge=0)
    buildings: int = Field(default=300, gt=0)
    first_of_second_world: int = Field(default=101_000_000, ge=0)
    second_world: int = Field(default=0, ge=0)
    scans_per_building: int = Field(default=8, gt=0)
    first_validation_building: int = Field(default=10_000_000, ge=0)
    validation_buildings: int = Field(default=12, gt=0)
    validation_sensor: str = "os1-16"

    @property
    def seeds(self) -> list[int]:
        """Of all buildings that training takes."""
        first, second = self.first_building, self.first_of_second_world
        return [*range(first, first + self.buildings), *range(second, second + self.second_world)]


class AugmentConfig(_Strict):
    """What is changed at random in a training scan; probabilities and half ranges."""

    tilt: float = Field(default=0.03, ge=0)  # rad, standard deviation of roll and pitch: what a calibration leaves
    scale: float = Field(default=0.05, ge=0, lt=1)
    jitter: float = Field(default=0.01, ge=0)  # m, standard deviation
    drop_points: float = Field(default=0.5, ge=0, le=1)  # probability; then up to half of the points go
    drop_rings: float = Field(default=0.2, ge=0, le=1)  # probability; then every second ring goes
    drop_intensity: float = Field(default=0.2, ge=0, le=1)  # probability
    response: float = Field(default=0.0, ge=0, le=1)  # probability; then intensities come by another, random response
    wrong_scale: float = Field(default=0.0, ge=0, le=1)  # probability; then their mean and deviation are far off
    coarse_voxels: float = Field(default=0.5, ge=0, le=1)  # probability; then voxels are up to twice as large
    max_voxels: int = Field(default=8000, gt=1)  # those nearest to a random one are kept


class OptimiserConfig(_Strict):
    """AdamW, with a linear warm-up and a cosine to `minimum` times the learning rate."""

    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=3e-3, ge=0)
    warmup: float = Field(default=0.04, ge=0, lt=1)  # fraction of the run
    minimum: float = Field(default=0.005, ge=0, le=1)
    lovasz: float = Field(default=1.0, ge=0)  # weight of the Lovasz-softmax loss beside cross-entropy


class TrainConfig(_Strict):
    """All of a run. With `hours` given, the schedule ends then, if `steps` have not been reached before."""

    name: str
    seed: int = Field(default=0, ge=0, lt=2**63)
    start: str | None = None  # bundle, by name or path, whose weights the run begins with; a narrower one is widened
    label_space: str = "structural6"
    data: DataConfig = DataConfig()
    network: NetworkConfig
    preprocess: PreprocessConfig
    intensity: IntensityConfig = IntensityConfig()
    augment: AugmentConfig = AugmentConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    steps: int = Field(gt=0)
    hours: float | None = Field(default=None, gt=0)
    batch: int = Field(default=2, gt=0)  # scans a forward pass
    accumulate: int = Field(default=1, gt=0)  # forward passes a step
    validate_every: int = Field(default=500, gt=0)  # steps

    @model_validator(mode="after")
    def _makes_a_bundle(self) -> "TrainConfig":
        space = LabelSpace.load(self.label_space)
        if space.ids.tolist() != list(range(len(space.classes))):  # they are places among the network's outputs
            raise ValueError(
                f"label_space {space.name} has other ids than 0, 1, 2 ...; number its classes so, in order"
            )
        if self.intensity.mode != "per_sensor":
            raise ValueError(
                f"intensity mode {self.intensity.mode}: training brings the intensities of each scan to mean 0 and "
                "deviation 1, which the bundle calls per_sensor; leave `intensity` out"
            )
        try:
            points = PointNetwork(network=self.network, preprocess=self.preprocess, intensity=self.intensity)
            BundleDescription(name=self.name, segmentation=points, label_space=space, weights_sha256="")
        except ValidationError as error:
            raise ValueError(f"{describe_invalid(error)} (label_space {space.name}); make the two equal") from error
        return self

    @classmethod
    def load(cls, name_or_path: str | Path) -> "TrainConfig":
        """Read a configuration by its path, or by its name in config/training/. Raises UserError."""
        return configuration.load(cls, FOLDER, "training configuration", name_or_path)
