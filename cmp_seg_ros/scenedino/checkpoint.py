"""Reads the published checkpoints of SceneDINO: `checkpoint.pt`, flat or nested, of the DINO and DINOv2 variants."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.network_weights import load_state, read_checkpoint
from cmp_seg_ros.scenedino.config import FieldConfig, VitConfig
from cmp_seg_ros.scenedino.field import FeatureField

PREFIX = "renderer.net."
# Published prefix -> ours
NAMES = {
    "encoder.encoder.model.vit.": "encoder.",
    "encoder.decoder.": "decoder.",
    "encoder.downsampler.": "downsampler.",
    "encoder.dim_reduction.": "up_projection.",
    "code_xyz.": "code.",
    "heads.normal_head.": "mlp.",
    "downstream_head.": "head.",
}
IGNORED = ("encoder.gt_encoder.",)  # the frozen teacher of the training


def read(path: Path, image: tuple[int, int] = (192, 640)) -> FeatureField:
    """The published network in evaluation mode, float32, for images of (height, width).

    Raises:
        UserError: the file cannot be read, contains more than weights, or does not fit: names every missing,
            unexpected or misshapen key.
    """
    state = renamed(_flat(read_checkpoint(path), path), path)
    config = FieldConfig(encoder=_encoder(state, path), image=image)
    with torch.device("meta"):
        network = FeatureField(config)
    network = network.to_empty(device="cpu")
    state["encoder.pos_embed"] = resampled(state["encoder.pos_embed"], network.encoder.grid, path)  # type: ignore[arg-type]
    load_state(network, state, str(path))
    return network.eval().requires_grad_(False)


def renamed(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Weights under our names, without the teacher's and those of the training wrapper."""
    inside = {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}
    if not inside:
        raise UserError(
            f"checkpoint {path} has no key '{PREFIX}...' of SceneDINO; it has: {', '.join(map(str, state))[:400]}"
        )
    found = {}
    for key, value in inside.items():
        if not key.startswith(IGNORED):
            theirs = next((name for name in NAMES if key.startswith(name)), "")
            found[NAMES.get(theirs, "") + key.removeprefix(theirs)] = value
    return found


def _flat(content: Any, path: Path) -> dict[str, Tensor]:
    """The state of a file that is one, or that holds one as `model`, as those of the trainer do."""
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict):
        raise UserError(f"checkpoint {path} is a {type(content).__name__}, not a dict of tensors; give checkpoint.pt")
    return {str(key).removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)}


def _encoder(state: dict[str, Tensor], path: Path) -> VitConfig:
    """The encoder, from keys and shapes. Raises UserError if they are missing."""
    try:
        width, _, patch, _ = state["encoder.patch_embed.proj.weight"].shape
        state["encoder.pos_embed"]
        depth = 1 + max(int(key.split(".")[2]) for key in state if key.startswith("encoder.blocks."))
    except (KeyError, ValueError) as error:
        reason = f"key {error} is missing" if isinstance(error, KeyError) else "its encoder has no usable blocks"
        raise UserError(f"checkpoint {path}: {reason}; give checkpoint.pt of SceneDINO") from error
    return VitConfig(
        patch=patch,
        stride=8 if patch == 8 else 16,
        width=width,
        depth=depth,
        heads=width // 64,
        layer_scale="encoder.blocks.0.ls1.gamma" in state,
    )


def resampled(positions: Tensor, grid: tuple[int, int], path: Path) -> Tensor:
    """Position embedding (1, 1 + h w, C) for another grid of patches, bicubic; published grids have h : w = 3 : 10."""
    if positions.ndim != 3 or positions.shape[1] == 1 + grid[0] * grid[1]:
        return positions
    height = round(((positions.shape[1] - 1) * 0.3) ** 0.5)
    width = (positions.shape[1] - 1) // max(height, 1)
    if height * width != positions.shape[1] - 1:
        raise UserError(f"checkpoint {path}: encoder.pos_embed has {positions.shape[1]} positions, of no known grid")
    own = positions[:, 1:].transpose(1, 2).unflatten(2, (height, width))
    own = torch.nn.functional.interpolate(own, grid, mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], own.flatten(2).transpose(1, 2)], dim=1)
