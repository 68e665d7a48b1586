"""The feature field: an image becomes a map of features; a point in space becomes density, features and a class."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.scenedino.config import ClusterConfig, FieldConfig
from cmp_seg_ros.scenedino.decoder import Decoder
from cmp_seg_ros.scenedino.encoders import make_encoder
from cmp_seg_ros.scenedino.head import ClusterHead, Downsampler, LinearHead, UpProjection

NEAREST = 1e-3  # metres along the optical axis
NO_HEIGHT = (0.0, 0.0, 0.0, -4.0)  # `up` of a camera whose place is unknown: all points get one height, far below
METRES = 2.0  # of height a unit of the code
BEYOND = 2.0  # normalised image coordinates are clamped to -2..2


class Samples(NamedTuple):
    """The field at (B, N) points.

    Args:
        density: (B, N), 1 / m.
        features: (B, N, F).
        invalid: (B, N), outside the view; density and features are then those of the image's border.
    """

    density: Tensor
    features: Tensor
    invalid: Tensor


class FeatureField(nn.Module):
    """features <- decoder(encoder(image)); density, features of a point <- mlp([features at its pixel, code])"""

    def __init__(self, config: FieldConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = make_encoder(config.encoder, config.image)
        self.decoder = Decoder(config.decoder, self.encoder.channels)
        self.code = PositionalCode(config.frequencies, config.factor, 3 + config.heights)
        self.mlp = PointMlp(config.decoder.width + self.code.outputs, config.hidden, 1 + config.features)
        head = config.head
        if isinstance(head, ClusterConfig):
            self.up_projection: nn.Module = UpProjection(config.features, head.hidden, head.full)
            self.head: ClusterHead | LinearHead = ClusterHead(head)
            self.downsampler = Downsampler(head.full, config.encoder.stride)
        else:
            self.up_projection, self.head = nn.Identity(), LinearHead(config.features, head)

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) images in [-1, 1] -> (B, D, h, w) map of features."""
        return self.decoder(self.encoder(image))

    def query(self, features: Tensor, points: Tensor, intrinsics: Tensor, up: Tensor | None = None) -> Samples:
        """The field at points.

        Args:
            features: (B, D, h, w) from `encode`.
            points: (B, N, 3) in the camera's frame, metres.
            intrinsics: (B, 3, 3) normalised: the image spans [-1, 1] in both directions.
            up: (B, 4) height of a point (x, y, z, 1) above the floor, metres; None: unknown.
        """
        uv, invalid = project(points, intrinsics)  # (B, N, 2), (B, N)
        x = torch.cat([sample(features, uv), self.code(self.coordinates(points, uv, up))], dim=2)  # (B, N, D + C)
        out = self.mlp(x)  # (B, N, 1 + F)
        return Samples(functional.softplus(out[..., 0]), out[..., 1:], invalid)

    def coordinates(self, points: Tensor, uv: Tensor, up: Tensor | None = None) -> Tensor:
        """(B, N, 3 or 4) what the code sees: u, v, inverse depth scaled to -1 (far) .. 1 (near), and height."""
        near, far = self.config.code_near or self.config.depth[0], self.config.depth[1]
        inverse = 1 / points[..., 2:].clamp(min=NEAREST)
        seen = [uv, 2 * (inverse - 1 / far) / (1 / near - 1 / far) - 1]
        if self.config.heights:
            up = points.new_tensor(NO_HEIGHT).expand(len(points), 4) if up is None else up
            seen.append((points @ up[:, :3, None] + up[:, None, 3:]) / METRES)
        return torch.cat(seen, dim=-1)

    def logits(self, features: Tensor) -> Tensor:
        """(..., F) features of points -> (..., classes) logits, or cosines with cluster centres."""
        return self.head(self.up_projection(features))

    def classes(self, features: Tensor) -> Tensor:
        """(..., F) features of points -> (...) ids."""
        assignment: Tensor = self.head.assignment
        return assignment[self.logits(features).argmax(dim=-1)]


class PointMlp(nn.Module):
    """lin_out(relu(lin_in(x)))"""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.lin_in = nn.Linear(inputs, hidden)
        self.lin_out = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin_out(functional.relu(self.lin_in(x)))


class PositionalCode(nn.Module):
    """x -> [x, sin(f_k x), cos(f_k x)] with f_k = factor 2^k; the cosine is sin(f_k x + pi / 2)."""

    _freqs: Tensor
    _phases: Tensor

    def __init__(self, frequencies: int, factor: float, inputs: int = 3) -> None:
        super().__init__()
        self.outputs = inputs * (1 + 2 * frequencies)
        scale = factor * 2.0 ** torch.arange(frequencies)
        self.register_buffer("_freqs", scale.repeat_interleave(2).view(1, -1, 1))
        self.register_buffer("_phases", torch.tensor([0.0, torch.pi / 2]).repeat(frequencies).view(1, -1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)"""
        waves = torch.sin(x.unsqueeze(-2) * self._freqs + self._phases)  # (..., 2 K, inputs)
        return torch.cat([x, waves.flatten(-2)], dim=-1)


def project(points: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N, 3) points, (B, 3, 3) normalised intrinsics -> (B, N, 2) image coordinates, (B, N) whether out of view."""
    z = points[..., 2:]
    uv = (points @ intrinsics.transpose(1, 2))[..., :2] / z.clamp(min=NEAREST)
    invalid = (z <= NEAREST) | (uv.abs() > 1).any(dim=-1, keepdim=True)
    return uv.clamp(-BEYOND, BEYOND), invalid.squeeze(-1)


def sample(features: Tensor, uv: Tensor) -> Tensor:
    """(B, D, h, w) map, (B, N, 2) image coordinates -> (B, N, D), bilinear; border values outside."""
    found = functional.grid_sample(features, uv.unsqueeze(2), padding_mode="border", align_corners=False)
    return found.squeeze(3).transpose(1, 2)


def normalised_intrinsics(camera: Camera) -> Tensor:
    """(3, 3) intrinsics of a pinhole camera for `project`; in pixels the first has its centre at 0."""
    fx, fy, cx, cy = camera.intrinsics
    width, height = camera.width, camera.height
    rows = [
        [2 * fx / width, 0, 2 * (cx + 0.5) / width - 1],
        [0, 2 * fy / height, 2 * (cy + 0.5) / height - 1],
        [0, 0, 1],
    ]
    return torch.tensor(rows, dtype=torch.float64).float()
