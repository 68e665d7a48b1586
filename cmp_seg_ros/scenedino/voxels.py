"""Density and classes of a feature field at the voxels of a grid: the plain way, and the folded network's."""

from collections.abc import Iterator
from copy import deepcopy
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cmp_seg_ros.kernels import field as kernels
from cmp_seg_ros.kernels.vector import HAS_BFLOAT16, LANES
from cmp_seg_ros.scan import Bool, Float32, Int32, Int64
from cmp_seg_ros.scenedino.encoders.vit import Attention
from cmp_seg_ros.scenedino.field import FeatureField, Samples, project
from cmp_seg_ros.scenedino.fold import FoldedDecoder, FoldedHead, Phases, folded_head
from cmp_seg_ros.scenedino.head import ClusterHead
from cmp_seg_ros.waffleiron.fold import pack

CHUNK = 1 << 16  # points at a time
QUERIES = 256  # at a time in bfloat16, whose scores then stay in the cache
HEADED = 1 << 12  # points at a time in the head, whose widest layer then stays in the cache


Network = TypeVar("Network", bound=nn.Module)


class Points(NamedTuple):
    """Points of one camera and grid, with all that does not depend on the image.

    Args:
        xyz: (1, N, 3) in the camera's frame.
        intrinsics: (1, 3, 3) normalised.
        up: (1, 4) height above the floor, or None.
        invalid: (N,) outside the view.
        places: for the kernels, sorted by their pixels, so that a map larger than the cache is read once; None for the
            plain way.
        rank: (N,) row of each point in `places`.
    """

    xyz: Tensor
    intrinsics: Tensor
    up: Tensor | None
    invalid: Bool
    places: kernels.Places | None = None
    rank: Int32 | None = None


class Plain:
    """The network as it is: `look` once an image, `plan` once a camera and grid, then density and classes."""

    def __init__(self, field: FeatureField) -> None:
        self.field = field

    @torch.inference_mode()
    def look(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) in [-1, 1] -> map of features."""
        return self.field.encode(image)

    def plan(self, xyz: Tensor, intrinsics: Tensor, up: Tensor | None = None) -> Points:
        """(N, 3) points in the camera's frame, (3, 3) normalised intrinsics, (4,) height as for `query`."""
        _, invalid = project(xyz[None], intrinsics[None])
        return Points(xyz[None], intrinsics[None], None if up is None else up[None], invalid[0].numpy())

    @torch.inference_mode()
    def density(self, features: Tensor, points: Points) -> Float32:
        """(N,) densities, 1 / m."""
        return torch.cat([found.density[0] for found in self._chunks(features, points, points.xyz)]).numpy()

    @torch.inference_mode()
    def classes(self, features: Tensor, points: Points, rows: Int64) -> Int64:
        """(R,) ids of the classes of some points."""
        chunks = self._chunks(features, points, points.xyz[:, torch.from_numpy(rows)])
        return torch.cat([self.field.classes(found.features)[0] for found in chunks]).numpy()

    @torch.inference_mode()
    def point_features(self, features: Tensor, points: Points, rows: Int64) -> Float32:
        """(R, F) features of some points."""
        chunks = self._chunks(features, points, points.xyz[:, torch.from_numpy(rows)])
        return torch.cat([found.features[0] for found in chunks]).numpy()

    def _chunks(self, features: Tensor, points: Points, xyz: Tensor) -> Iterator[Samples]:
        """The field at (1, N, 3) of the points, CHUNK at a time."""
        for part in xyz.split(CHUNK, dim=1):
            yield self.field.query(features, part, points.intrinsics, points.up)


class Folded(Plain):
    """The network with the savings of `fold.py`, and with projections computed once a grid.

    Weights of `field` are shared where they stay the same.

    Args:
        low: products are of bfloat16, as are the map and the codes; None: where the processor has instructions for it.
    """

    def __init__(self, field: FeatureField, low: bool | None = None) -> None:
        super().__init__(field)
        self.low = HAS_BFLOAT16 if low is None else low
        mlp, width = field.mlp, field.config.decoder.width
        first, bias = mlp.lin_in.weight.detach(), mlp.lin_in.bias.detach()
        self.last = mlp.lin_out.weight.detach()
        self.last_bias = mlp.lin_out.bias.detach()
        self.encoder: nn.Module = field.encoder.folded()
        self.decoder: nn.Module = FoldedDecoder(field.decoder, first[:, :width], self.low).eval()
        if self.low:
            self.encoder, self.decoder = lowered(self.encoder), lowered(self.decoder)
        self.head = folded_head(field) if isinstance(field.head, ClusterHead) else None
        if self.low and self.head is not None:
            self.head = FoldedHead(*(part.bfloat16() for part in self.head))
        self.hidden = mlp.lin_in.out_features
        code = pack(first[:, width:].double().numpy(), bias.numpy(), "bf16" if self.low else "fp32", LANES)
        density = np.zeros(code.columns.shape[1], np.float32)
        density[: self.hidden] = self.last[0].numpy()
        low_type = np.empty(0, np.uint16 if self.low else np.float32)
        config = field.config
        self.weights = kernels.Weights(code, np.float32(config.factor), config.frequencies, density, low_type)
        self._rows, self._columns = self._addresses()

    @torch.inference_mode()
    def look(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) -> (P, H) pixels of the map: the first layer of the point MLP, without the code's part."""
        image = image.contiguous(memory_format=torch.channels_last)  # convolutions keep it; they are faster so
        with torch.autocast("cpu", torch.bfloat16, enabled=self.low):
            found: Tensor = self.decoder(self.encoder(image))
        return found.reshape(-1, self.hidden).contiguous()

    @torch.inference_mode()
    def plan(self, xyz: Tensor, intrinsics: Tensor, up: Tensor | None = None) -> Points:
        points = super().plan(xyz, intrinsics, up)
        uv, _ = project(points.xyz, points.intrinsics)
        coordinates = self.field.coordinates(points.xyz, uv, points.up)[0]
        size = torch.tensor([len(self._columns), len(self._rows)])  # (x, y)
        place = ((uv[0] + 1) * size / 2 - 0.5).clamp(torch.zeros(2), size - 1.0)  # pixels
        cell = torch.minimum(place.floor(), size - 2.0)
        order = (cell[:, 1] * size[0] + cell[:, 0]).argsort()
        found = coordinates[order], cell[order].int(), (place - cell)[order]
        rank = torch.empty(len(order), dtype=torch.int32)
        rank[order] = torch.arange(len(order), dtype=torch.int32)
        return points._replace(places=kernels.Places(*(part.numpy() for part in found)), rank=rank.numpy())

    @torch.inference_mode()
    def density(self, features: Tensor, points: Points) -> Float32:
        assert points.places is not None and points.rank is not None
        out = np.empty(len(points.rank), np.float32)
        kernels.evaluate(self.weights, self._map(features), points.places, np.arange(len(out), dtype=np.int32), out)
        return functional.softplus(torch.from_numpy(out[points.rank]).add_(self.last_bias[0])).numpy()

    @torch.inference_mode()
    def classes(self, features: Tensor, points: Points, rows: Int64) -> Int64:
        found = np.empty(len(rows), np.int64)
        assignment: Tensor = self.field.head.assignment
        for first in range(0, len(rows), HEADED):
            hidden = self._hidden(features, points, rows[first : first + HEADED])
            if self.head is not None:
                scores = self.head(hidden.to(self.head.into.dtype))
            else:
                scores = self.field.head(functional.linear(hidden, self.last[1:], self.last_bias[1:]))
            found[first : first + HEADED] = assignment[scores.argmax(dim=1)].numpy()
        return found

    @torch.inference_mode()
    def point_features(self, features: Tensor, points: Points, rows: Int64) -> Float32:
        return functional.linear(self._hidden(features, points, rows), self.last[1:], self.last_bias[1:]).numpy()

    def _hidden(self, features: Tensor, points: Points, rows: Int64) -> Tensor:
        """(R, H) hidden layer of the point MLP."""
        assert points.places is not None and points.rank is not None
        out = np.empty((len(rows), self.hidden), np.float32)
        kernels.evaluate(self.weights, self._map(features), points.places, points.rank[rows], out)
        return torch.from_numpy(out)

    def _map(self, features: Tensor) -> kernels.Map:
        pixels = features.view(torch.int16).numpy().view(np.uint16) if self.low else features.numpy()
        return kernels.Map(pixels, self._rows, self._columns)

    def _addresses(self) -> tuple[Int32, Int32]:
        """(h,), (w,): the pixel (y, x) of the map is rows[y] + columns[x] among those of `look`."""
        height, width = self.field.config.image
        if self.field.config.decoder.light:
            rows, columns = np.arange(height // 4) * (width // 4), np.arange(width // 4)
        else:
            stride = self.field.config.encoder.stride
            y, x = (np.arange(-(-size // stride // 2) * 32) for size in (height, width))  # coarsest level rounds up
            rows, columns = Phases.addresses(y, x, len(x))
        return rows.astype(np.int32), columns.astype(np.int32)


def lowered(network: Network) -> Network:
    """A copy for autocast: weights of products are rounded once, not in every run; attention goes by parts."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    rounded = {id(p): nn.Parameter(p.bfloat16(), False) for layer in layers for p in layer.parameters(recurse=False)}
    copy = deepcopy(network, rounded)
    for module in copy.modules():
        if isinstance(module, Attention):
            module.mix = attention_by_parts
    return copy


def attention_by_parts(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k' / sqrt(C)) v of (1, heads, N, C) each, some queries of one head at a time.

    On processors without matrix units it takes 0.4 of the time of PyTorch's in bfloat16.
    """
    out = torch.empty_like(q)
    for queries, keys, values, mixed in zip(q[0], k[0], v[0], out[0], strict=True):
        scaled = keys.T * keys.shape[1] ** -0.5
        for some, to in zip(queries.split(QUERIES), mixed.split(QUERIES), strict=True):
            torch.mm((some @ scaled).softmax(dim=-1), values, out=to)
    return out
