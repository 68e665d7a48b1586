"""The WaffleIron network (Puy et al., ICCV 2023, arXiv 2301.10100), with the variants of ScaLR and ScaLR+.

Tokens are (M, F), with all scans of a batch concatenated. Parameter names are the published ones; `checkpoint.py`
converts published weights to our shapes (1x1 convolutions are linear layers here).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cmp_seg_ros.waffleiron import pooling
from cmp_seg_ros.waffleiron.batch import Batch, PlaneCells
from cmp_seg_ros.waffleiron.config import NetworkConfig

NEIGHBOUR_CHUNK = 1 << 18  # rows of the neighbour branch processed at a time, outside training


class Segmenter(nn.Module):
    """logits <- classif(WaffleIron(embed(features)))"""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = Embedding(config.inputs, config.width)
        self.waffleiron = WaffleIron(config)
        self.classif = _head(config)

    def forward(self, batch: Batch) -> Tensor:
        """Batch of M voxels -> (M, outputs) logits."""
        tokens = self.embed(batch.features, batch.neighbours)  # (M, F)
        tokens = self.waffleiron(tokens, batch)  # (M, F)
        return self.classif(tokens)  # (M, outputs)


class Embedding(nn.Module):
    """tokens <- final([conv1(x), max over neighbours j of conv2(x_j - x_i)]), x = norm(features)"""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(inputs)
        self.conv1 = nn.Linear(inputs, width)
        self.conv2 = nn.Sequential(
            nn.BatchNorm1d(inputs),
            nn.Linear(inputs, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width, bias=False),
        )
        self.final = nn.Linear(2 * width, width)

    def forward(self, features: Tensor, neighbours: Tensor) -> Tensor:
        """(M, C) features and (M, K) neighbours -> (M, F) tokens."""
        x = self.norm(features)  # (M, C)
        if self.training and pooling.applies(x):
            gathered = pooling.pool(self.conv2, x, neighbours)
        elif self.training:
            gathered = self._neighbourhood(x, neighbours, x)
        else:  # the (M K, F) tensor of a large scan would need too much memory
            rows = max(1, NEIGHBOUR_CHUNK // neighbours.shape[1])
            parts = zip(neighbours.split(rows), x.split(rows), strict=True)
            gathered = torch.cat([self._neighbourhood(x, index, centre) for index, centre in parts])
        return self.final(torch.cat([self.conv1(x), gathered], dim=1))  # (M, F)

    def _neighbourhood(self, x: Tensor, neighbours: Tensor, centre: Tensor) -> Tensor:
        rows, count = neighbours.shape
        difference = x.index_select(0, neighbours.flatten()).view(rows, count, -1) - centre[:, None]  # (M, K, C)
        lifted = self.conv2(difference.flatten(0, 1)).view(rows, count, -1)  # (M, K, F)
        # Equal except for ties; `max` has the faster backward pass, `amax` the faster forward pass.
        return lifted.max(dim=1).values if self.training else lifted.amax(dim=1)  # (M, F)


class WaffleIron(nn.Module):
    """Layer d: tokens <- SpatialMix_d(tokens) on plane d mod G; tokens <- ChannelMix_d(tokens)"""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.channel_mix = nn.ModuleList(ChannelMix(config) for _ in range(config.depth))
        self.spatial_mix = nn.ModuleList(SpatialMix(config) for _ in range(config.depth))

    def forward(self, tokens: Tensor, batch: Batch) -> Tensor:
        for layer, (spatial, channel) in enumerate(zip(self.spatial_mix, self.channel_mix, strict=True)):
            tokens = spatial(tokens, batch.planes[layer % len(batch.planes)], batch.sample)
            tokens = channel(tokens, batch.sample)
        return tokens


class SpatialMix(nn.Module):
    """tokens <- tokens + gather(scale(ffn(cell mean(norm(tokens)))))"""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width = config.width
        self.norm = _norm(config)
        self.ffn = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width),
            _activation(config),
            nn.Conv2d(width, width, 3, padding=1, groups=width),
        )
        self.scale = LayerScale(width)
        self.drop_path = DropPath(config.drop_path)

    def forward(self, tokens: Tensor, plane: PlaneCells, sample: Tensor) -> Tensor:
        size, height, width = plane.shape
        residual = self.norm(tokens).to(plane.weight.dtype)  # (M, F), of full precision for the sums
        grid = residual.new_zeros(size * height * width, residual.shape[1])  # (B H W, F)
        grid = grid.index_add(0, plane.index, residual) * plane.weight  # mean of each cell
        grid = grid.view(size, height, width, -1).permute(0, 3, 1, 2)  # (B, F, H, W), channels last in memory
        grid = functional.conv2d(self.ffn[:-1](grid), *self.scale.into(self.ffn[-1]), padding=1, groups=grid.shape[1])
        grid = grid.permute(0, 2, 3, 1).flatten(0, 2)  # (B H W, F)
        return tokens + self.drop_path(grid.index_select(0, plane.index), sample)


class ChannelMix(nn.Module):
    """tokens <- tokens + scale(mlp(norm(tokens)))"""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.norm = _norm(config)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, config.width), _activation(config), nn.Linear(config.width, config.width)
        )
        self.scale = LayerScale(config.width)
        self.drop_path = DropPath(config.drop_path)

    def forward(self, tokens: Tensor, sample: Tensor) -> Tensor:
        residual = functional.linear(self.mlp[:-1](self.norm(tokens)), *self.scale.into(self.mlp[-1]))
        return tokens + self.drop_path(residual, sample)


class LayerScale(nn.Module):
    """One factor per channel, initialised like the published depthwise 1x1 convolution: uniform in (-1, 1).

    Applied to the weights of the preceding layer, which costs almost nothing in training.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width).uniform_(-1, 1))

    def into(self, layer: nn.Module) -> tuple[Tensor, Tensor]:
        """Scaled weight and bias of a linear layer or convolution."""
        weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
        return weight * self.weight.view(-1, *[1] * (weight.ndim - 1)), bias * self.weight


class DropPath(nn.Module):
    """Stochastic depth: drops a scan's residual with probability p, scales the others by 1 / (1 - p)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, residual: Tensor, sample: Tensor) -> Tensor:
        if not self.training or self.probability == 0 or len(sample) == 0:
            return residual
        keep = 1 - self.probability
        kept = torch.rand(int(sample[-1]) + 1, device=residual.device) < keep  # (B,)
        return residual * (kept / keep)[sample, None]


def _norm(config: NetworkConfig) -> nn.Module:
    return nn.BatchNorm1d(config.width) if config.norm == "batchnorm" else nn.LayerNorm(config.width)


def _activation(config: NetworkConfig) -> nn.Module:
    return nn.ReLU(inplace=True) if config.activation == "relu" else nn.GELU()


def _head(config: NetworkConfig) -> nn.Module:
    if config.head == "mlp":
        return nn.Sequential(
            nn.Linear(config.width, config.head_hidden), nn.ReLU(), nn.Linear(config.head_hidden, config.outputs)
        )
    if config.head == "probe":
        return nn.Sequential(nn.BatchNorm1d(config.width), nn.Linear(config.width, config.outputs))
    return nn.Linear(config.width, config.outputs)
