"""Vision transformer with the parameter names of DINO (Caron et al., 2021) and DINOv2 (Oquab et al., 2024)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from cmp_seg_ros.scenedino import encoders
from cmp_seg_ros.scenedino.config import VitConfig

EPSILON = 1e-6  # of the layer norms


class Encoder(encoders.Encoder):
    """Maps: outputs of three blocks, and the normalised output of the last with tokens of unit length."""

    def __init__(self, config: VitConfig, image: tuple[int, int]) -> None:
        super().__init__()
        self.taps, self.stride = config.taps, config.stride
        self.grid = image[0] // config.stride, image[1] // config.stride
        self.resized = self.grid[0] * config.patch, self.grid[1] * config.patch
        self.channels = (config.width,) * 4
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + self.grid[0] * self.grid[1], config.width))
        self.patch_embed = PatchEmbedding(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, EPSILON)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] -> four maps (B, C, H / stride, W / stride)."""
        if image.shape[2:] != self.resized:
            image = functional.interpolate(image, self.resized, mode="bilinear")
        tokens = self.patch_embed.proj(self.normalised(image)).flatten(2).transpose(1, 2)  # (B, N, C)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.pos_embed
        maps = []
        for number, block in enumerate(self.blocks):
            tokens = block(tokens)
            if number in self.taps:
                maps.append(self._as_map(tokens))
        return [*maps, self._as_map(functional.normalize(self.norm(tokens), dim=-1))]

    def _as_map(self, tokens: Tensor) -> Tensor:
        """(B, 1 + N, C) -> (B, C, h, w), without the class token."""
        return tokens[:, 1:].transpose(1, 2).unflatten(2, self.grid)


class PatchEmbedding(nn.Module):
    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.width, config.patch, stride=config.patch)


class Block(nn.Module):
    """tokens <- tokens + ls1(attn(norm1(tokens))); tokens <- tokens + ls2(mlp(norm2(tokens)))"""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, EPSILON)
        self.attn = Attention(config)
        self.ls1 = LayerScale(config.width) if config.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(config.width, EPSILON)
        self.mlp = Mlp(config.width)
        self.ls2 = LayerScale(config.width) if config.layer_scale else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens)))
        tokens = tokens + self.ls2(self.mlp(self.norm2(tokens)))
        return tokens


class Attention(nn.Module):
    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)
        self.mix: Callable[[Tensor, Tensor, Tensor], Tensor] = functional.scaled_dot_product_attention

    def forward(self, tokens: Tensor) -> Tensor:
        qkv = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, heads, N, C / heads)
        mixed = self.mix(*qkv)  # (B, heads, N, C / heads)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(tokens)))


class LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 1e-5))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gamma
