"""Density and classes of a feature field at the voxels of a grid: the plain way, and the folded network's."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from cmp_seg_ros.kernels import field as kernels
from cmp_seg_ros.kernels.vector import HAS_BFLOAT16
from cmp_seg_ros.scenedino.field import FeatureField, project
from cmp_seg_ros.scenedino.fold import FoldedDecoder, folded_head
from cmp_seg_ros.scenedino.head import ClusterHead

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

CHUNK = 1 << 16  # points at a time
KEPT = 1 << 26  # numbers that a plan keeps, at most; beyond, codes are computed in every frame (SSCBench: 2 % of it)


class Points(NamedTuple):
    """Points of one camera and grid, with all that does not depend on the image.

    Args:
        xyz: (1, N, 3) in the camera's frame.
        intrinsics: (1, 3, 3) normalised.
        up: (1, 4) height above the floor, or None.
        invalid: (N,) outside the view.
        code: (N, H) products of the positional codes with the weights; nothing for the plain way and for large grids.
        corner, weight: (N,), (N, 2) pixels of the map, as for `kernels.field.hidden`; nothing for the plain way.
    """

    xyz: Tensor
    intrinsics: Tensor
    up: Tensor | None
    invalid: npt.NDArray[np.bool_]
    code: Tensor
    corner: npt.NDArray[np.int32]
    weight: Float32


class Evaluation(Protocol):
    """What finds density and classes. `look` once an image, `plan` once a camera and grid, then the others."""

    field: FeatureField

    def look(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) in [-1, 1] -> map of features."""

    def plan(self, xyz: Tensor, intrinsics: Tensor, up: Tensor | None = None) -> Points:
        """(N, 3) points in the camera's frame, (3, 3) normalised intrinsics, (4,) height as for `query`."""

    def density(self, features: Tensor, points: Points) -> Float32:
        """(N,) densities, 1 / m."""

    def classes(self, features: Tensor, points: Points, rows: Int64) -> Int64:
        """(R,) ids of the classes of some points."""

    def point_features(self, features: Tensor, points: Points, rows: Int64) -> Float32:
        """(R, F) features of some points."""


class Plain:
    """The network as it is: density of all points first, then classes of some."""

    def __init__(self, field: FeatureField) -> None:
        self.field = field

    @torch.inference_mode()
    def look(self, image: Tensor) -> Tensor:
        return self.field.encode(image)

    def plan(self, xyz: Tensor, intrinsics: Tensor, up: Tensor | None = None) -> Points:
        above = None if up is None else up[None]
        _, invalid = project(xyz[None], intrinsics[None])
        nothing = np.zeros(0, np.float32)
        return Points(
            xyz[None], intrinsics[None], above, invalid[0].numpy(), torch.zeros(0), nothing.astype(np.int32), nothing
        )

    @torch.inference_mode()
    def density(self, features: Tensor, points: Points) -> Float32:
        parts = [
            self.field.query(features, xyz, points.intrinsics, points.up).density
            for xyz in points.xyz.split(CHUNK, dim=1)
        ]
        return torch.cat(parts, dim=1)[0].numpy()

    @torch.inference_mode()
    def classes(self, features: Tensor, points: Points, rows: Int64) -> Int64:
        chunks = points.xyz[:, torch.from_numpy(rows)].split(CHUNK, dim=1)
        parts = [
            self.field.classes(self.field.query(features, xyz, points.intrinsics, points.up).features) for xyz in chunks
        ]
        return torch.cat(parts, dim=1)[0].numpy()

    @torch.inference_mode()
    def point_features(self, features: Tensor, points: Points, rows: Int64) -> Float32:
        return (
            self.field.query(features, points.xyz[:, torch.from_numpy(rows)], points.intrinsics, points.up)
            .features[0]
            .numpy()
        )


class Folded:
    """The network with the savings of `fold.py`, and with codes and projections computed once a grid.

    Weights of `field` are shared where they stay the same.

    Args:
        low: encoder, decoder and the widest layer of the head multiply in bfloat16; None: where the processor does.
    """

    def __init__(self, field: FeatureField, low: bool | None = None) -> None:
        self.field = field
        self.low = HAS_BFLOAT16 if low is None else low
        mlp, width = field.mlp, field.config.decoder.width
        self.first_code = mlp.lin_in.weight.detach()[:, width:].contiguous()  # (H, C)
        self.first_bias = mlp.lin_in.bias.detach()
        self.last = mlp.lin_out.weight.detach()
        self.last_bias = mlp.lin_out.bias.detach()
        self.decoder: nn.Module = FoldedDecoder(field.decoder, mlp.lin_in.weight.detach()[:, :width], self.low).eval()
        self.head = folded_head(field) if isinstance(field.head, ClusterHead) else None
        self.hidden = mlp.lin_in.out_features

    @torch.inference_mode()
    def look(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) -> (h, w, H), channels last: the first layer of the point MLP, without the code's part."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.low):
            found: Tensor = self.decoder(self.field.encoder(image))
        return found.float().contiguous()

    @torch.inference_mode()
    def plan(self, xyz: Tensor, intrinsics: Tensor, up: Tensor | None = None) -> Points:
        above = None if up is None else up[None]
        uv, invalid = project(xyz[None], intrinsics[None])
        size = self._map_size()
        place = (uv[0] + 1) * torch.tensor([size[1], size[0]]) / 2 - 0.5  # pixels (x, y)
        place = place.clamp(torch.zeros(2), torch.tensor([size[1] - 1.0, size[0] - 1.0]))
        cell = torch.minimum(place.floor(), torch.tensor([size[1] - 2.0, size[0] - 2.0]))
        corner = (cell[:, 1] * size[1] + cell[:, 0]).int().numpy()
        found = Points(
            xyz[None], intrinsics[None], above, invalid[0].numpy(), torch.empty(0), corner, (place - cell).numpy()
        )
        if len(xyz) * self.hidden > KEPT:
            return found
        codes = torch.empty(len(xyz), self.hidden)
        for out, index in zip(codes.split(CHUNK), torch.arange(len(xyz)).split(CHUNK), strict=True):
            out.copy_(self._coded(found, index))
        return found._replace(code=codes)

    def _coded(self, points: Points, index: Tensor) -> Tensor:
        """(R, H) the code's part of the first layer of the point MLP."""
        xyz = points.xyz[:, index]
        uv, _ = project(xyz, points.intrinsics)
        code = self.field.code(self.field.coordinates(xyz, uv, points.up))[0]
        return functional.linear(code, self.first_code, self.first_bias)

    def _map_size(self) -> tuple[int, int]:
        """(height, width) of the map."""
        height, width = self.field.config.image
        if self.field.config.decoder.light:
            return height // 4, width // 4
        stride = self.field.config.encoder.stride
        return -(-height // stride // 2) * 32, -(-width // stride // 2) * 32  # the coarsest level rounds up

    @torch.inference_mode()
    def density(self, features: Tensor, points: Points) -> Float32:
        found = np.empty(len(points.corner), np.float32)
        for first in range(0, len(found), CHUNK):
            rows = np.arange(first, min(first + CHUNK, len(found)), dtype=np.int32)
            out = torch.mv(self._hidden(features, points, rows), self.last[0]) + self.last_bias[0]
            found[first : first + CHUNK] = functional.softplus(out).numpy()
        return found

    @torch.inference_mode()
    def classes(self, features: Tensor, points: Points, rows: Int64) -> Int64:
        found = [np.zeros(0, np.int64)]
        for some in np.array_split(rows.astype(np.int32), len(rows) // CHUNK + 1):
            hidden = self._hidden(features, points, some)
            if self.head is not None:
                with torch.autocast("cpu", torch.bfloat16, enabled=self.low):
                    scores = self.head(hidden)
            else:
                scores = self.field.head(functional.linear(hidden, self.last[1:], self.last_bias[1:]))
            assignment: Tensor = self.field.head.assignment
            found.append(assignment[scores.argmax(dim=1)].numpy())
        return np.concatenate(found)

    @torch.inference_mode()
    def point_features(self, features: Tensor, points: Points, rows: Int64) -> Float32:
        hidden = self._hidden(features, points, rows.astype(np.int32))
        return functional.linear(hidden, self.last[1:], self.last_bias[1:]).numpy()

    def _hidden(self, features: Tensor, points: Points, rows: npt.NDArray[np.int32]) -> Tensor:
        """(R, H) hidden layer of the point MLP."""
        index = torch.from_numpy(rows)
        code = points.code[index] if len(points.code) else self._coded(points, index)
        out = np.empty((len(rows), self.hidden), np.float32)
        kernels.hidden(features.numpy(), points.corner, points.weight, code.numpy(), rows, out)
        return torch.from_numpy(out)
