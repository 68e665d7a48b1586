"""A model bundle: a folder with `bundle.yaml` (all that is known of a network) and `weights.safetensors`."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cmp_seg_ros import resources
from cmp_seg_ros.errors import UserError, one_line
from cmp_seg_ros.familiarity import Familiarity
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.waffleiron.config import NetworkConfig, PreprocessConfig

FOLDER = "models"
DEFAULT_BUNDLE = "waffleiron24-128"
DESCRIPTION = "bundle.yaml"
WEIGHTS = "weights.safetensors"
REMEDY = "copy the bundle again, or make it anew with `cmp-seg train` or `cmp-seg import-checkpoint`"


class IntensityConfig(BaseModel):
    """How intensities reach the network: `raw`, or (i - mean) / std with numbers of the bundle or of each sensor.

    What comes of it is cut off at -limit and limit, where there is one: a retroreflector, or the statistics of another
    sensor, must not drown the rest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["raw", "fixed", "per_sensor"] = "per_sensor"
    mean: float = 0.0  # fixed only
    std: float = Field(default=1.0, gt=0)  # fixed only
    limit: float | None = Field(default=None, gt=0)


class BundleDescription(BaseModel):
    """The content of bundle.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: str
    network: NetworkConfig
    preprocess: PreprocessConfig
    intensity: IntensityConfig = IntensityConfig()
    label_space: LabelSpace
    weights_sha256: str
    temperature: float = Field(default=1.0, gt=0)  # divides the logits (Guo et al., ICML 2017): calibrates confidences
    familiarity: Familiarity | None = None  # how unlike those of the training a scan may be
    training: dict[str, Any] = {}  # how it was made
    measured: dict[str, Any] = {}  # what it scores, and on what

    @model_validator(mode="after")
    def _consistent(self) -> "BundleDescription":
        if self.network.inputs != self.preprocess.inputs:
            raise ValueError(f"network.inputs is {self.network.inputs}, the features have {self.preprocess.inputs}")
        if self.network.planes != len(self.preprocess.planes):
            raise ValueError(f"network.planes is {self.network.planes}, preprocess has {len(self.preprocess.planes)}")
        if self.network.outputs != len(self.label_space.classes):
            raise ValueError(f"network.outputs is {self.network.outputs}, classes are {len(self.label_space.classes)}")
        return self


class Bundle:
    """A bundle on disk. Raises UserError for a missing or broken file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        for name in (DESCRIPTION, WEIGHTS):
            if not (self.path / name).is_file():
                raise UserError(
                    f"bundle {self.path} has no {name}; a bundle is a folder with {DESCRIPTION} and {WEIGHTS}"
                )
        try:
            self.description = BundleDescription.model_validate(yaml.safe_load((self.path / DESCRIPTION).read_text()))
        except ValidationError as error:
            raise UserError(
                f"bundle description {self.path / DESCRIPTION} is not valid: {one_line(error)}; {REMEDY}"
            ) from error
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"bundle description {self.path / DESCRIPTION} cannot be read: {reason}; {REMEDY}"
            ) from error
        if _sha256(self.path / WEIGHTS) != self.description.weights_sha256:
            raise UserError(
                f"{self.path / WEIGHTS} is damaged: its sha256 is not the one in {DESCRIPTION}; copy it again"
            )

    @classmethod
    def find(cls, name_or_path: str | Path) -> "Bundle":
        """Look a bundle up as a path, then by its name in models/."""
        if Path(name_or_path).is_dir():
            return cls(name_or_path)
        known = resources.names(FOLDER)
        if str(name_or_path) not in known:
            raise UserError(
                f"no bundle '{name_or_path}': neither a folder nor one of models/ ({', '.join(known) or 'empty'})"
            )
        return cls(resources.resource(f"{FOLDER}/{name_or_path}"))

    @classmethod
    def write(cls, path: str | Path, weights: bytes, **description: Any) -> "Bundle":
        """Make a bundle from serialised safetensors and the fields of BundleDescription (without the hash)."""
        path = Path(path)
        described = BundleDescription(weights_sha256=hashlib.sha256(weights).hexdigest(), **description)
        path.mkdir(parents=True, exist_ok=True)
        (path / WEIGHTS).write_bytes(weights)
        text = yaml.safe_dump(described.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120)
        (path / DESCRIPTION).write_text(text)
        return cls(path)

    @property
    def weights_path(self) -> Path:
        return self.path / WEIGHTS

    @cached_property
    def hash(self) -> str:
        """12 hex digits that change with either file."""
        content = (self.path / DESCRIPTION).read_bytes() + self.description.weights_sha256.encode()
        return hashlib.sha256(content).hexdigest()[:12]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
