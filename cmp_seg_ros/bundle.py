"""A model bundle: a folder with `bundle.yaml` (all that is known of a network) and `weights.safetensors`."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

from cmp_seg_ros import configuration, resources
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.familiarity import Choice, Familiarity
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scenedino.config import FieldConfig
from cmp_seg_ros.waffleiron.config import NetworkConfig, PreprocessConfig

FOLDER = "models"
DEFAULT_BUNDLE = "waffleiron24-128"
DESCRIPTION = "bundle.yaml"
WEIGHTS = "weights.safetensors"
REMEDY = "copy the bundle again, or make it anew with `cmp-seg train` or `cmp-seg import-checkpoint`"

Kind = Literal["segmentation", "features", "occupancy"]


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


class PointNetwork(BaseModel):
    """Section of kinds `segmentation` and `features`: a network on the voxels of a scan, and how its input is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: NetworkConfig
    preprocess: PreprocessConfig
    intensity: IntensityConfig = IntensityConfig()

    @model_validator(mode="after")
    def _consistent(self) -> "PointNetwork":
        if self.network.inputs != self.preprocess.inputs:
            raise ValueError(f"network.inputs is {self.network.inputs}, the features have {self.preprocess.inputs}")
        if self.network.planes != len(self.preprocess.planes):
            raise ValueError(f"network.planes is {self.network.planes}, preprocess has {len(self.preprocess.planes)}")
        return self


class ImageNetwork(BaseModel):
    """Section of kind `occupancy`: a network from one image to a field of density and classes.

    Args:
        network: its architecture.
        focal: of the pinhole camera whose images it knows, in pixels of its input; other images are warped to it. None:
            any, since the network takes images as they are.
        threshold: density in 1 / m from which a voxel is occupied.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: FieldConfig
    focal: PositiveFloat | None = None
    threshold: PositiveFloat


class BundleDescription(BaseModel):
    """The content of bundle.yaml: a header, and one section that is named by the kind.

    A file of format 1 is of kind `segmentation`, and has the fields of that section beside those of the header.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    format: Literal[2] = 2
    name: str
    kind: Kind = "segmentation"
    classes: LabelSpace | None = Field(default=None, alias="label_space")
    weights_sha256: str
    temperature: float = Field(default=1.0, gt=0)  # divides the logits (Guo et al., ICML 2017): calibrates confidences
    familiarity: Familiarity | None = None  # how unlike those of the training a scan may be
    intensities: Choice | None = None  # which a scan is labelled with (strange_intensity.py); None: with all
    training: dict[str, Any] = {}  # how it was made
    measured: dict[str, Any] = {}  # what it scores, and on what
    segmentation: PointNetwork | None = None
    features: PointNetwork | None = None
    occupancy: ImageNetwork | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_format_1(cls, data: Any) -> Any:
        if not isinstance(data, dict) or (data.get("format") != 1 and "network" not in data):
            return data
        fields = [name for name in PointNetwork.model_fields if name in data]
        header = {name: value for name, value in data.items() if name not in fields}
        return header | {"format": 2, "segmentation": {name: data[name] for name in fields}}

    @model_validator(mode="after")
    def _consistent(self) -> "BundleDescription":
        sections = [name for name in ("segmentation", "features", "occupancy") if getattr(self, name) is not None]
        if sections != [self.kind]:
            raise ValueError(
                f"kind {self.kind} needs one section, {self.kind}; there is {', '.join(sections) or 'none'}"
            )
        if (self.classes is None) != (self.kind == "features"):
            raise ValueError(f"kind {self.kind} {'needs a' if self.classes is None else 'has no'} label_space")
        if self.segmentation is not None and self.segmentation.network.outputs != len(self.label_space.classes):
            outputs, count = self.segmentation.network.outputs, len(self.label_space.classes)
            raise ValueError(f"network.outputs is {outputs}, classes are {count}")
        return self

    @property
    def section(self) -> PointNetwork | ImageNetwork:
        """That of its kind."""
        section: PointNetwork | ImageNetwork = getattr(self, self.kind)
        return section

    @property
    def label_space(self) -> LabelSpace:
        """Raises UserError for a bundle without classes."""
        if self.classes is None:
            raise UserError(f"bundle '{self.name}' is of kind {self.kind} and has no classes; take one that labels")
        return self.classes


class Bundle:
    """A bundle on disk. Raises UserError for a missing or broken file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        for name in (DESCRIPTION, WEIGHTS):
            if not (self.path / name).is_file():
                raise UserError(
                    f"bundle {self.path} has no {name}; a bundle is a folder with {DESCRIPTION} and {WEIGHTS}"
                )
        described = configuration.read(BundleDescription, "bundle description", self.path / DESCRIPTION, REMEDY)
        if _sha256(self.path / WEIGHTS) != described.weights_sha256:
            raise UserError(
                f"{self.path / WEIGHTS} is damaged: its sha256 is not the one in {DESCRIPTION}; copy it again"
            )
        if described.classes is not None:
            described = described.model_copy(update={"classes": described.classes.recoloured()})
        self.description = described

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
        """Make a bundle of serialised safetensors and the fields of BundleDescription, of either format (no hash)."""
        path = Path(path)
        described = BundleDescription(weights_sha256=hashlib.sha256(weights).hexdigest(), **description)
        path.mkdir(parents=True, exist_ok=True)
        (path / WEIGHTS).write_bytes(weights)
        fields = described.model_dump(mode="json", by_alias=True)
        fields = {name: value for name, value in fields.items() if value is not None}
        text = yaml.safe_dump(fields, sort_keys=False, default_flow_style=None, width=120)
        (path / DESCRIPTION).write_text(text)
        return cls(path)

    @property
    def weights_path(self) -> Path:
        return self.path / WEIGHTS

    @property
    def points(self) -> PointNetwork:
        """The section of a network on scans. Raises UserError for a bundle of another kind."""
        section = self.description.section
        if not isinstance(section, PointNetwork):
            raise UserError(
                f"bundle {self.path} is of kind {self.description.kind}, which does not label scans; give one of "
                f"kind segmentation, such as {DEFAULT_BUNDLE}"
            )
        return section

    @property
    def trained(self) -> bool:
        """Whether its answers mean anything."""
        return bool(self.description.training)

    @cached_property
    def hash(self) -> str:
        """12 hex digits of what decides the numbers: weights, architecture, preprocessing, classes in their order.

        Name, colours, training and scores may change.
        """
        known = self.description
        classes = [(found.name, found.id) for found in known.classes.classes] if known.classes else []
        section = known.section.model_dump(mode="json")
        confidence = known.model_dump(mode="json", include={"temperature", "familiarity"})
        if known.intensities is not None:  # else hashes are those from before it existed
            confidence |= known.model_dump(mode="json", include={"intensities"})
        content = [known.kind, section, classes, confidence, known.weights_sha256]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
