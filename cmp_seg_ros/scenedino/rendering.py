"""Volume rendering of depth, features and classes along rays (Mildenhall et al., ECCV 2020)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

LAST = 1e10  # metres; length of the last interval, so that what nothing stops ends there


class Rendered(NamedTuple):
    """Along (B, R) rays: distance in metres, (B, R, F) features, (B, R, S) weights of the samples."""

    distance: Tensor
    features: Tensor
    weights: Tensor


def distances(rays: int, samples: int, depth: tuple[float, float], jitter: bool, like: Tensor) -> Tensor:
    """(rays, samples) distances, uniform in inverse distance from near to far; stratified, at random with `jitter`."""
    steps = torch.arange(samples, device=like.device, dtype=like.dtype).expand(rays, -1)
    steps = (steps + (torch.rand_like(steps) if jitter else 0.5)) / samples  # 0..1
    near, far = depth
    return 1 / (1 / near + steps * (1 / far - 1 / near))


def composite(density: Tensor, features: Tensor, at: Tensor) -> Rendered:
    """(B, R, S) densities, (B, R, S, F) features and (B, R, S) distances of samples -> what the rays see.

    alpha_i = 1 - exp(-delta_i sigma_i); w_i = alpha_i prod_{j < i} (1 - alpha_j)
    """
    deltas = torch.cat([at.diff(dim=-1), torch.full_like(at[..., :1], LAST)], dim=-1)
    alpha = 1 - torch.exp(-deltas * density)
    clear = torch.cumprod(1 - alpha + 1e-10, dim=-1)
    before = torch.cat([torch.ones_like(clear[..., :1]), clear[..., :-1]], dim=-1)
    weights = alpha * before  # (B, R, S)
    return Rendered((weights * at).sum(-1), (weights[..., None] * features).sum(-2), weights)


def render(
    query: Callable[[Tensor], tuple[Tensor, Tensor]],
    directions: Tensor,
    depth: tuple[float, float],
    samples: int,
    jitter: bool = False,
) -> Rendered:
    """Render rays from the camera through a field.

    Args:
        query: (B, N, 3) points -> (B, N) density, (B, N, F) features.
        directions: (B, R, 3) in the camera's frame, of unit length.
        depth: (near, far) distances along the rays.
    """
    batch, rays = directions.shape[:2]
    at = distances(batch * rays, samples, depth, jitter, directions).view(batch, rays, samples)
    points = at[..., None] * directions[:, :, None]  # (B, R, S, 3)
    density, features = query(points.flatten(1, 2))
    return composite(density.view(batch, rays, samples), features.view(batch, rays, samples, -1), at)


def rays_of(intrinsics: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 3, 3) normalised intrinsics, (h, w) -> (B, h w, 3) unit directions through the centres of the pixels."""
    height, width = size
    v = (2 * torch.arange(height, device=intrinsics.device) + 1) / height - 1
    u = (2 * torch.arange(width, device=intrinsics.device) + 1) / width - 1
    v, u = torch.meshgrid(v, u, indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], dim=-1).view(-1, 3).to(intrinsics.dtype)
    directions = pixels @ torch.linalg.inv(intrinsics).transpose(1, 2)  # (B, h w, 3)
    return directions / directions.norm(dim=-1, keepdim=True)
