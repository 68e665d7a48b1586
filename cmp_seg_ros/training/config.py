"""The configuration of a training run, as read from a YAML file in config/training/."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from cmp_seg_ros import configuration
from cmp_seg_ros.bundle import IntensityConfig
from cmp_seg_ros.waffleiron.config import NetworkConfig, PreprocessConfig

FOLDER = "config/training"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Strict):
    """Simulated scans. Buildings are seeds: training takes first_building and those after it."""

    first_building: int = 1_000_000
    buildings: int = Field(default=300, gt=0)
    scans_per_building: int = Field(default=8, gt=0)
    first_validation_building: int = 10_000_000
    validation_buildings: int = Field(default=12, gt=0)
    validation_sensor: str = "os1-16"


class AugmentConfig(_Strict):
    """What is changed at random in a training scan; probabilities and half ranges."""

    tilt: float = 0.03  # rad, standard deviation of roll and pitch: what a calibration leaves
    scale: float = 0.05
    jitter: float = 0.01  # m, standard deviation
    drop_points: float = 0.5  # probability; then up to half of the points go
    drop_rings: float = 0.2  # probability; then every second ring goes
    drop_intensity: float = 0.2  # probability
    coarse_voxels: float = 0.5  # probability; then voxels are up to twice as large
    max_voxels: int = 8000  # those nearest to a random one are kept


class OptimiserConfig(_Strict):
    """AdamW, with a linear warm-up and a cosine to `minimum` times the learning rate."""

    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = 3e-3
    warmup: float = Field(default=0.04, ge=0, lt=1)  # fraction of the run
    minimum: float = 0.005
    lovasz: float = 1.0  # weight of the Lovasz-softmax loss beside cross-entropy


class TrainConfig(_Strict):
    """All of a run. With `hours` given, the schedule ends then, if `steps` have not been reached before."""

    name: str
    seed: int = 0
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

    @classmethod
    def load(cls, name_or_path: str | Path) -> "TrainConfig":
        """Read a configuration by its path, or by its name in config/training/. Raises UserError."""
        return configuration.load_file(cls, FOLDER, "training configuration", name_or_path)
