"""Reads published checkpoints of WaffleIron, ScaLR and ScaLR+ with their unchanged configuration files.

Width, depth, inputs, norm, head and classes are read from the keys and shapes of the weights and must agree with the
configuration; activation, planes, grids and field of view come from the configuration alone.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AliasGenerator,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from torch import Tensor

from cmp_seg_ros import configuration
from cmp_seg_ros.errors import UserError, describe_invalid
from cmp_seg_ros.network_weights import read_checkpoint
from cmp_seg_ros.waffleiron import weights
from cmp_seg_ros.waffleiron.config import Feature, NetworkConfig, Plane, PreprocessConfig
from cmp_seg_ros.waffleiron.network import Segmenter

# Keys of the weights in a checkpoint: trained with classes, and distilled without (two spellings are published).
CLASSIFIED, DISTILLED = ("net",), ("model_point", "model_points")
PLANES: dict[int, Plane] = {2: "xy", 1: "xz", 0: "yz"}  # by the axis that is projected away


@dataclass(frozen=True)
class Checkpoint:
    """A published network, ready to use.

    Args:
        network: in evaluation mode, float32.
        preprocess: preprocessing of its input.
        standardised: intensities are (i - mean) / std of the training data (ScaLR); raw otherwise (WaffleIron).
        distilled: the outputs are features of an image model, not classes.
        variant: name for display.
    """

    network: Segmenter
    preprocess: PreprocessConfig
    standardised: bool
    distilled: bool
    variant: str


def read(checkpoint: Path, config: Path, downstream: Path | None = None) -> Checkpoint:
    """Read a checkpoint with the configuration it was trained with.

    Args:
        checkpoint: `ckpt_last.pth` or `model.pth`, unpacked from its archive.
        config: WaffleIron's configuration, or the one of ScaLR's pre-training.
        downstream: the configuration of ScaLR's linear probing or fine-tuning.

    Raises:
        UserError: a file cannot be read or contains more than weights, or the weights do not match the configuration
            (names every key that is missing, unexpected or of another shape).
    """
    state, distilled = read_state(checkpoint)
    published = read_config(config, None if distilled else downstream)
    network_config = _agreed(published, _visible(state), checkpoint, config)
    network = Segmenter(network_config)
    weights.load_state(network, state, str(checkpoint))
    infinite = [key for key, value in network.state_dict().items() if not value.isfinite().all()]
    if infinite:
        raise UserError(f"weights in {checkpoint} are not finite: {', '.join(infinite)}; take another checkpoint")
    return Checkpoint(
        network=network.eval().requires_grad_(False),
        preprocess=published.preprocess,
        standardised=published.standardised,
        distilled=distilled,
        variant=published.variant,
    )


# Weights


def read_state(path: Path) -> tuple[dict[str, Tensor], bool]:
    """The weights of a checkpoint by name, without prefixes, and whether it is distilled. Raises UserError."""
    content = read_checkpoint(path)
    found = [key for key in (*CLASSIFIED, *DISTILLED) if isinstance(content, dict) and key in content]
    if not found:
        keys = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        wanted = "', '".join((*CLASSIFIED, *DISTILLED))
        raise UserError(f"checkpoint {path} has none of the keys '{wanted}' of published weights; it has: {keys[:400]}")
    state = content[found[0]]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"'{found[0]}' in checkpoint {path} is not a dict of tensors; use a published checkpoint")
    return {str(key).removeprefix("module."): value for key, value in state.items()}, found[0] in DISTILLED


def _visible(state: dict[str, Tensor]) -> dict[str, Any]:
    """The fields of NetworkConfig that can be read from keys and shapes."""
    shape = {key: tuple(value.shape) for key, value in state.items()}
    seen: dict[str, Any] = {}
    if len(embedding := shape.get("embed.conv1.weight", ())) >= 2:
        seen["width"], seen["inputs"] = embedding[:2]
    layers = [int(found[1]) for key in shape if (found := re.match(r"waffleiron\.\w+_mix\.(\d+)\.", key))]
    if layers:
        seen["depth"] = max(layers) + 1
        batchnorm = any(re.fullmatch(r"waffleiron\.\w+_mix\.\d+\.norm\.running_mean", key) for key in shape)
        seen["norm"] = "batchnorm" if batchnorm else "layernorm"
    if "classif.weight" in shape:
        seen["head"], seen["outputs"] = "linear", shape["classif.weight"][0]
    elif len(shape.get("classif.0.weight", ())) == 1:  # batch norm; in ScaLR+'s distilled file it is a convolution
        seen["head"], seen["outputs"] = "probe", shape.get("classif.1.weight", (None,))[0]
    elif "classif.0.weight" in shape:
        seen["head"], seen["outputs"] = "mlp", shape.get("classif.2.weight", (None,))[0]
        seen["head_hidden"] = shape["classif.0.weight"][0]
    return {key: value for key, value in seen.items() if value is not None}


# Configuration


@dataclass(frozen=True)
class _Published:
    """The content of the configuration files. `open_head`: they do not name the classifier trained downstream."""

    variant: str
    network: NetworkConfig
    preprocess: PreprocessConfig
    standardised: bool
    open_head: bool


Vector = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
Grids = Annotated[list[tuple[PositiveInt, PositiveInt]], Field(min_length=1)]
Axes = Annotated[list[Annotated[int, Field(ge=0, le=2)]], Field(min_length=1)]
DropPath = Annotated[float, Field(ge=0, lt=1)]


def _found_at(paths: dict[str, str]) -> ConfigDict:
    """Where a file has the fields of a model."""
    alias = AliasGenerator(validation_alias=lambda name: AliasPath(*paths.get(name, name).split(".")))
    return ConfigDict(alias_generator=alias)


class _File(BaseModel):
    """The fields of a published configuration; those with a default are not in all of them."""

    inputs: PositiveInt
    features: list[Feature]
    width: PositiveInt
    depth: PositiveInt
    outputs: PositiveInt
    planes: Axes
    grids: Grids
    fov: tuple[Vector, Vector]
    neighbours: PositiveInt
    voxel_size: FiniteFloat
    drop_path: DropPath = 0.0
    layernorm: bool = False
    mlp_head: bool = False
    gelu: bool | None = None  # only ScaLR+ has the key; its backbone always has layer norms
    head_hidden: PositiveInt = 2048


class _WaffleIronFile(_File):
    """configs/*.yaml of valeoai/WaffleIron, all versions."""

    model_config = _found_at(
        {
            "inputs": "embedding.size_input",
            "features": "embedding.input_feat",
            "width": "waffleiron.nb_channels",
            "depth": "waffleiron.depth",
            "outputs": "classif.nb_class",
            "planes": "waffleiron.dim_proj",
            "grids": "waffleiron.grids_size",
            "fov": "waffleiron.fov_xyz",
            "neighbours": "embedding.neighbors",
            "voxel_size": "embedding.voxel_size",
            "drop_path": "waffleiron.drop",
        }
    )


class _ScalrFile(_File):
    """configs/pretrain/*.yaml of valeoai/ScaLR."""

    model_config = _found_at(
        {name: f"point_backbone.{name}" for name in ("depth", "fov", "voxel_size", "drop_path", "layernorm", "gelu")}
        | {
            "inputs": "point_backbone.size_input",
            "features": "point_backbone.input_features",
            "width": "point_backbone.nb_channels",
            "outputs": "point_backbone.nb_class",
            "planes": "point_backbone.dim_proj",
            "grids": "point_backbone.grid_shape",
            "neighbours": "point_backbone.num_neighbors",
            "mlp_head": "point_backbone.mlp_classif",
            "head_hidden": "point_backbone.hidden",
        }
    )


class _DownstreamFile(BaseModel):
    """configs/downstream/*/*.yaml of valeoai/ScaLR."""

    model_config = _found_at(
        {
            "outputs": "classif.nb_class",
            "drop_path": "waffleiron.drop_path",
            "grids": "dataloader.new_grid_shape",
            "fov": "dataloader.new_fov",
        }
    )
    outputs: PositiveInt
    drop_path: DropPath = 0.0
    grids: Grids | None = None
    fov: tuple[Vector, Vector] | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_downstream(cls, data: Any) -> Any:
        if isinstance(data, dict) and ("point_backbone" in data or "embedding" in data):
            raise ValueError("this is a complete configuration; give it with --config")
        return data


def read_config(config: Path, downstream: Path | None = None) -> _Published:
    """Read a configuration, and ScaLR's downstream configuration that overrides it. Raises UserError."""
    data = _yaml(config)
    is_scalr = "point_backbone" in data
    if "waffleiron" in data and "embedding" not in data and not is_scalr:
        raise UserError(
            f"{config} is a downstream configuration of ScaLR; give it with --downstream, and that of the pre-training "
            "(configs/pretrain/*.yaml) with --config"
        )
    if downstream is not None and not is_scalr:
        raise UserError(
            f"--downstream needs a configuration of ScaLR's pre-training, but {config} is not one; leave --downstream "
            "out, or give another --config"
        )
    file = _validated(_ScalrFile if is_scalr else _WaffleIronFile, data, config)
    over = None if downstream is None else _validated(_DownstreamFile, _yaml(downstream), downstream)
    is_plus = file.gelu is not None
    fov = (over and over.fov) or file.fov
    network = NetworkConfig(
        inputs=file.inputs,
        width=file.width,
        depth=file.depth,
        outputs=over.outputs if over else file.outputs,
        planes=len(file.planes),
        norm="layernorm" if file.layernorm or is_plus else "batchnorm",
        activation="gelu" if file.gelu else "relu",
        head="probe" if over else "mlp" if file.mlp_head else "linear",
        head_hidden=file.head_hidden,
        drop_path=over.drop_path if over else file.drop_path,
    )
    try:
        preprocess = PreprocessConfig(
            features=file.features,
            voxel_size=file.voxel_size,
            neighbours=file.neighbours,
            fov_min=fov[0],
            fov_max=fov[1],
            planes=[PLANES[axis] for axis in file.planes],
            grids=(over and over.grids) or file.grids,
        )
    except ValidationError as error:
        raise UserError(f"configuration {config} is not valid: {describe_invalid(error)}") from error
    if preprocess.inputs != file.inputs:
        names = ", ".join(file.features)
        raise UserError(
            f"configuration {config}: size_input is {file.inputs}, but {names} are {preprocess.inputs} channels"
        )
    variant = "WaffleIron" if not is_scalr else "ScaLR+" if is_plus else "ScaLR"
    return _Published(variant, network, preprocess, is_scalr, is_scalr and over is None)


def _agreed(published: _Published, seen: dict[str, Any], checkpoint: Path, config: Path) -> NetworkConfig:
    """The architecture, on which configuration and weights must agree."""
    said = published.network.model_dump()
    if published.open_head and seen.get("head") == "probe":  # a downstream checkpoint without its configuration
        said |= {"head": seen["head"], "outputs": seen.get("outputs", said["outputs"])}
    differences = [f"{name} {value}, not {said[name]}" for name, value in seen.items() if value != said[name]]
    if differences:
        raise UserError(
            f"checkpoint {checkpoint} does not match configuration {config}: it has {'; '.join(differences)}; "
            "give the configuration that it was trained with"
        )
    return NetworkConfig(**said)


Model = TypeVar("Model", bound=BaseModel)


def _validated(model: type[Model], data: dict[str, Any], path: Path) -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError(f"configuration {path} is not a published one: {describe_invalid(error)}") from error


def _yaml(path: Path) -> dict[str, Any]:
    data = configuration.read_yaml("configuration", path)
    if not isinstance(data, dict):
        raise UserError(f"configuration {path} is not a published one: it has no fields")
    return data
