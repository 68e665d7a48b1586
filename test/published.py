"""Stand-ins for what is published: weights in the published shapes, and the forward pass as the papers describe it.

The forward pass is channel-first, padded and on full dense grids: slow, and independent of the one that it checks.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cmp_seg_ros.waffleiron.preprocess import Voxels

State = dict[str, Tensor]


def state(
    width: int = 8,
    depth: int = 4,
    outputs: int = 5,
    inputs: int = 5,
    norm: str = "batchnorm",
    head: str = "linear",
    hidden: int = 12,
) -> State:
    """Random weights under the published keys, in the published shapes and order."""
    generator = torch.Generator().manual_seed(0)
    made: State = {}

    def random(key: str, *shape: int, scale: float = 0.4) -> None:
        made[key] = scale * torch.randn(*shape, generator=generator)

    def normalisation(key: str, size: int, batch: bool = True) -> None:
        made[f"{key}.weight"] = 1 + 0.2 * torch.randn(size, generator=generator)
        random(f"{key}.bias", size)
        if batch:
            random(f"{key}.running_mean", size)
            made[f"{key}.running_var"] = 0.5 + torch.rand(size, generator=generator)
            made[f"{key}.num_batches_tracked"] = torch.tensor(7)

    def affine(key: str, *shape: int) -> None:
        random(f"{key}.weight", *shape)
        random(f"{key}.bias", shape[0])

    normalisation("embed.norm", inputs)
    affine("embed.conv1", width, inputs, 1)
    normalisation("embed.conv2.0", inputs)
    random("embed.conv2.1.weight", width, inputs, 1, 1)
    normalisation("embed.conv2.2", width)
    random("embed.conv2.4.weight", width, width, 1, 1)
    affine("embed.final", width, 2 * width, 1)
    for mix, layer, shape in (("channel_mix", "mlp", (width, width, 1)), ("spatial_mix", "ffn", (width, 1, 3, 3))):
        for d in range(depth):
            key = f"waffleiron.{mix}.{d}"
            normalisation(f"{key}.norm", width, norm == "batchnorm")
            affine(f"{key}.{layer}.0", *shape)
            affine(f"{key}.{layer}.2", *shape)
            random(f"{key}.scale.weight", width, 1, 1)
    if head == "linear":
        affine("classif", outputs, width, 1)
    elif head == "mlp":
        affine("classif.0", hidden, width, 1)
        affine("classif.2", outputs, hidden, 1)
    else:
        normalisation("classif.0", width)
        affine("classif.1", outputs, width, 1)
    return made


def padded(scans: list[Voxels]) -> dict[str, Tensor]:
    """Scans as the published collation gives them: padded to the longest, channel-first."""
    longest = max(map(len, scans))

    def pad(values: np.ndarray, fill: float) -> Tensor:
        return functional.pad(torch.from_numpy(values), (0, longest - values.shape[-1]), value=fill)

    return {
        "features": torch.stack([pad(scan.features.T, 0) for scan in scans]),  # (B, C, N)
        "cells": torch.stack([pad(scan.cells, 0) for scan in scans]),  # (B, G, N)
        "occupied": torch.stack([pad(np.ones(len(scan), np.float32), 0) for scan in scans]),  # (B, N)
        "neighbours": torch.stack([pad(scan.neighbours.T, longest - 1) for scan in scans]),  # (B, K, N)
    }


def logits(weights: State, batch: dict[str, Tensor], grids: list[tuple[int, int]], activation: str) -> Tensor:
    """(B, classes, N) answer of the network in evaluation mode."""
    rest: State = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    act: Any = functional.relu if activation == "relu" else functional.gelu

    def bn(key: str, x: Tensor) -> Tensor:
        fields = (rest[f"{key}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, *fields)

    def norm(key: str, x: Tensor) -> Tensor:
        if f"{key}.running_mean" in rest:
            return bn(key, x)
        weight, bias = rest[f"{key}.weight"], rest[f"{key}.bias"]
        return functional.layer_norm(x.transpose(1, 2), weight.shape, weight, bias).transpose(1, 2)

    def conv(key: str, x: Tensor) -> Tensor:
        return functional.conv1d(x, rest[f"{key}.weight"], rest.get(f"{key}.bias"))

    features, occupied = batch["features"], batch["occupied"][:, None]
    size = len(features)
    x = bn("embed.norm", features)
    around = []
    for index in batch["neighbours"].unbind(1):  # one neighbour of every point at a time
        difference = x.gather(2, index[:, None].expand_as(x)) - x
        y = functional.relu(bn("embed.conv2.2", _conv2d(rest, "embed.conv2.1", bn("embed.conv2.0", difference))))
        around.append(_conv2d(rest, "embed.conv2.4", y))
    tokens = conv("embed.final", torch.cat([conv("embed.conv1", x), torch.stack(around).amax(0)], 1))

    depth = sum(key.startswith("waffleiron.spatial_mix.") and key.endswith(".scale.weight") for key in rest)
    for d in range(depth):
        key, plane = f"waffleiron.spatial_mix.{d}", d % len(grids)
        height, width = grids[plane]
        flatten = functional.one_hot(batch["cells"][:, plane], height * width).float() * occupied.transpose(1, 2)
        mean = norm(f"{key}.norm", tokens) @ flatten / (flatten.sum(1, keepdim=True) + 1e-6)  # (B, F, H W)
        grid = mean.view(size, -1, height, width)
        for layer in (0, 2):
            weight, bias = rest[f"{key}.ffn.{layer}.weight"], rest[f"{key}.ffn.{layer}.bias"]
            grid = functional.conv2d(grid, weight, bias, padding=1, groups=len(weight))
            grid = act(grid) if layer == 0 else grid
        back = batch["cells"][:, plane, None].expand(-1, tokens.shape[1], -1)
        tokens = tokens + rest[f"{key}.scale.weight"][:, 0] * grid.flatten(2).gather(2, back)
        key = f"waffleiron.channel_mix.{d}"
        mixed = conv(f"{key}.mlp.2", act(conv(f"{key}.mlp.0", norm(f"{key}.norm", tokens))))
        tokens = tokens + rest[f"{key}.scale.weight"][:, 0] * mixed

    if "classif.weight" in rest:
        return conv("classif", tokens)
    if "classif.2.weight" in rest:
        return conv("classif.2", functional.relu(conv("classif.0", tokens)))
    return conv("classif.1", bn("classif.0", tokens))


def _conv2d(weights: State, key: str, x: Tensor) -> Tensor:
    return functional.conv2d(x[..., None], weights[f"{key}.weight"])[..., 0]
