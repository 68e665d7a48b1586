"""The same network with less work: exact algebra on the weights, done once at export.

- Bilinear sampling is linear, so the first layer of the point MLP goes into the last convolution of the decoder.
- A transposed convolution and the convolution behind it are four convolutions of 2x2, one for each phase of the output.
- A 1x1 convolution and the bilinear upsampling before it may change places: a quarter of the work.
- Batch norms go into the convolutions before them (encoders/efficientnet_lite0.py).
- 3x3 convolutions by Winograd's F(4x4, 3x3): a quarter of the multiplications (Lavin and Gray, CVPR 2016).
- The published head on a point needs no 768 features: their norm comes from a Gram matrix, the layers behind them are
  composed with those before, and the distilled features need no norm for the nearest centre.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cmp_seg_ros.scan import Int64
from cmp_seg_ros.scenedino.decoder import Decoder, OutputHead, ResidualUnit
from cmp_seg_ros.scenedino.field import FeatureField
from cmp_seg_ros.scenedino.head import ClusterHead, UpProjection

TILE = 4  # outputs of a tile along each axis
BANDS = 1 << 23  # elements of transformed tiles at a time, at most
# Winograd's matrices for outputs at 0, 1, -1, 2, -2, infinity
B = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0]]
B += [[0, 4, 0, -5, 0, 1]]
G = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
]
G += [[0, 0, 1]]
A = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


class Winograd(nn.Module):
    """A 3x3 convolution with padding 1 of one map, channels last: (h, w, C) -> (h, w, D)."""

    weight: Tensor
    into: Tensor
    out_of: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        weight = conv.weight.detach().double()
        self.register_buffer("bias", conv.get_parameter("bias").detach(), persistent=False)
        g, b, a = (torch.tensor(matrix, dtype=torch.float64) for matrix in (G, B, A))
        weight = torch.einsum("ia,ocab,jb->ijco", g, weight, g)
        self.register_buffer("weight", weight.flatten(0, 1).float().permute(0, 2, 1).contiguous()[..., None, None])
        self.register_buffer("into", torch.kron(b, b).float())  # (36, 36)
        self.register_buffer("out_of", torch.kron(a, a).float())  # (16, 36)

    def forward(self, x: Tensor) -> Tensor:
        height, width, channels = x.shape
        down, across = -(-height // TILE), -(-width // TILE)
        x = functional.pad(x, (0, 0, 1, 1 + across * TILE - width, 1, 1 + down * TILE - height))
        rows = max(1, BANDS // (36 * across * channels))  # of tiles at a time
        bands = [self._band(x[TILE * i : TILE * min(i + rows, down) + 2], across) for i in range(0, down, rows)]
        return torch.cat(bands)[:height, :width]

    def _band(self, x: Tensor, across: int) -> Tensor:
        """(4 n + 2, 4 m + 2, C) -> (4 n, 4 m, D)"""
        down, channels = x.shape[0] // TILE, x.shape[2]
        tiles = x.unfold(0, 6, TILE).unfold(1, 6, TILE)  # (n, m, C, 6, 6)
        tiles = tiles.permute(3, 4, 0, 1, 2).reshape(36, -1)  # (36, n m C)
        tiles = (self.into @ tiles).view(36, 1, down, across, channels).permute(0, 1, 4, 2, 3)  # channels last
        # A 1x1 convolution is the same product as a matrix product, and faster here.
        products = [functional.conv2d(tile, weight) for tile, weight in zip(tiles, self.weight, strict=True)]
        flat = torch.stack([p.permute(0, 2, 3, 1) for p in products]).flatten(1)  # (36, n m D)
        out = (self.out_of @ flat).view(TILE, TILE, down, across, -1).permute(2, 0, 3, 1, 4)  # (n, 4, m, 4, D)
        return out.reshape(down * TILE, across * TILE, -1) + self.bias


class Direct(nn.Module):
    """A convolution of one map, channels last; relu if it is followed by one."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        self.conv = conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0)


def convolution(conv: nn.Conv2d, low: bool) -> nn.Module:
    """The faster form: Winograd's pays from some 64 channels on, but is not accurate enough in bfloat16 (`low`)."""
    return Winograd(conv) if conv.in_channels >= 64 and not low else Direct(conv)


class Phases(nn.Module):
    """A transposed convolution of 2x2 and stride 2, and a 3x3 convolution behind it: (h, w, C) -> (h + 1, w + 1, 4, D).

    Output pixel (2 y + p, 2 x + q) depends on the inputs y + p - 1, y + p and x + q - 1, x + q; it is at
    (y + p, x + q, 2 p + q). Left in this order, nothing is copied. The bias of the first layer is missing outside the
    image, so the sum of both biases differs along the border.
    """

    border: Tensor

    def __init__(self, up: nn.ConvTranspose2d, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        first, before = up.weight.detach().double(), up.get_parameter("bias").detach().double()  # (C, M, 2, 2), (M,)
        outputs, inputs = weight.shape[0], first.shape[0]
        kernels = torch.zeros(2, 2, outputs, inputs, 2, 2, dtype=torch.float64)
        for p, q, dy, dx in torch.cartesian_prod(*map(torch.arange, (2, 2, 3, 3))).tolist():
            row, column = (p + dy - 1) // 2 - (p - 1), (q + dx - 1) // 2 - (q - 1)  # among the two inputs
            part = weight[:, :, dy, dx].double() @ first[:, :, (p + dy - 1) % 2, (q + dx - 1) % 2].T
            kernels[p, q, :, :, row, column] += part
        # The bias of a map of 4 x 4 pixels has every case: the first row, those between, the last; columns likewise.
        constant = functional.conv2d(before.view(1, -1, 1, 1).expand(1, -1, 4, 4), weight.double(), padding=1)[0]
        border = (constant + bias.double()[:, None, None]).permute(1, 2, 0)[[0, 1, 3]][:, [0, 1, 3]]  # (3, 3, D)
        conv = nn.Conv2d(inputs, 4 * outputs, 2, padding=1)
        conv.weight = nn.Parameter(kernels.flatten(0, 2).float())
        conv.bias = nn.Parameter(border[1, 1].repeat(4).float())
        self.conv = conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.register_buffer("border", border.float())

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0).unflatten(2, (4, -1))  # (h + 1, w + 1, 4, D)
        # The first and last row and column here have none but pixels of the first and last there.
        border = self.border.to(out.dtype)
        middle = border[1, 1]
        for i, row in ((0, 0), (2, -1)):
            out[row] += border[i, 1] - middle
            out[:, row] += border[1, i] - middle
            for j, column in ((0, 0), (2, -1)):
                out[row, column] += border[i, j] - border[i, 1] - border[1, j] + middle
        return out

    @staticmethod
    def interleaved(out: Tensor) -> Tensor:
        """(h + 1, w + 1, 4, D) as above -> (2 h, 2 w, D)"""
        height, width = out.shape[0] - 1, out.shape[1] - 1
        parts = [out[p : p + height, q : q + width, 2 * p + q] for p in range(2) for q in range(2)]
        return torch.stack(parts).unflatten(0, (2, 2)).permute(2, 0, 3, 1, 4).reshape(2 * height, 2 * width, -1)

    @staticmethod
    def addresses(y: Int64, x: Int64, width: int) -> tuple[Int64, Int64]:
        """Flat index of the pixel (y, x), of `width` in a row, among the h + 1 times w + 1 times 4 above: their sum."""
        return (y // 2 + y % 2) * (width // 2 + 1) * 4 + y % 2 * 2, (x // 2 + x % 2) * 4 + x % 2


class FoldedUnit(nn.Module):
    def __init__(self, unit: ResidualUnit, low: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = convolution(unit.conv1, low), convolution(unit.conv2, low)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(functional.relu_(self.conv1(functional.relu(x)))).add_(x)


class FoldedDecoder(nn.Module):
    """The decoder with the first layer of the point MLP: four maps -> (h, w, hidden), or as of `Phases`."""

    def __init__(self, decoder: Decoder, first: Tensor, low: bool = False) -> None:
        """`first` (hidden, D): the part of that layer that sees the features; `low`: to be run in bfloat16."""
        super().__init__()
        self.reassemble, self.convs = decoder.reassemble_blocks, decoder.convs
        self.units1 = nn.ModuleList(FoldedUnit(block.res_conv_unit1, low) for block in decoder.fusion_blocks[1:])  # type: ignore[arg-type]
        self.units2 = nn.ModuleList(FoldedUnit(block.res_conv_unit2, low) for block in decoder.fusion_blocks)  # type: ignore[arg-type]
        self.projects = nn.ModuleList(Direct(block.project) for block in decoder.fusion_blocks)  # type: ignore[arg-type]
        self.upsamples = [bool(block.upsample) for block in decoder.fusion_blocks]
        if isinstance(decoder.output_head, OutputHead):
            inner, up, last = decoder.output_head.head_modules
            assert isinstance(inner, nn.Conv2d) and isinstance(up, nn.ConvTranspose2d) and isinstance(last, nn.Conv2d)
            weight, bias = _behind(first, last)
            self.tail = nn.Sequential(
                convolution(decoder.project, low), convolution(inner, low), Phases(up, weight, bias)
            )
        else:
            weight, bias = _behind(first, decoder.project)
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
            self.tail = nn.Sequential(convolution(conv, low))

    def forward(self, maps: list[Tensor]) -> Tensor:
        maps = [x.contiguous(memory_format=torch.channels_last) for x in self.reassemble(maps)]
        levels = [conv(x) for conv, x in zip(self.convs, maps, strict=True)]
        x = levels[3][0].permute(1, 2, 0)
        for i, level in enumerate(reversed(levels)):
            if i > 0:
                if level.shape[2:] != x.shape[:2]:
                    level = functional.interpolate(level, x.shape[:2], mode="bilinear", align_corners=False)
                x = self.units1[i - 1](level[0].permute(1, 2, 0)).add_(x)
            x = self.projects[i](self.units2[i](x))
            if self.upsamples[i]:
                x = doubled(x)
        for layer in self.tail:  # each is some 130 MB of the published size: keep none of them
            x = layer(x)
        return x


def doubled(x: Tensor) -> Tensor:
    """(h, w, C) -> (2 h, 2 w, C), bilinear, corners aligned: two products of matrices, faster than gathering pixels."""
    height, width, channels = x.shape
    x = torch.matmul(_doubling(width).to(x.dtype), x)
    return (_doubling(height).to(x.dtype) @ x.flatten(1)).view(2 * height, 2 * width, channels)


def _doubling(size: int) -> Tensor:
    """(2 size, size) shares of the pixels along one axis."""
    place = torch.arange(2 * size, dtype=torch.float64) * (size - 1) / (2 * size - 1)
    return (1 - (place[:, None] - torch.arange(size)).abs()).clamp(min=0)


def _behind(first: Tensor, conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of `first` (a matrix) behind a convolution."""
    weight = torch.einsum("od,dcyx->ocyx", first.double(), conv.weight.detach().double())
    return weight.float(), (first.double() @ conv.bias.detach().double()).float()  # type: ignore[union-attr]


class FoldedHead(NamedTuple):
    """From the hidden layer h of the point MLP to scores of clusters (N, K), whose largest is that of the cosines.

    a = relu(A h + a0); n = |L a + l| by the Gram matrix;
    scores = C (P (L a + l) / n + p) + C (Q relu((W (L a + l)) / n + w) + q) with all products of matrices done.
    """

    into: Tensor  # (U, H): A
    into_bias: Tensor
    gram: Tensor  # (U, U): L' L
    gram_linear: Tensor  # (U,): L' l
    gram_constant: Tensor  # (): l' l
    inner: Tensor  # (768, U): W L
    inner_constant: Tensor  # (768,): W l
    inner_bias: Tensor  # (768,): w
    outer: Tensor  # (K, 768): C Q
    path: Tensor  # (K, U): C P L
    path_constant: Tensor  # (K,): C P l
    bias: Tensor  # (K,): C (p + q)

    def __call__(self, hidden: Tensor) -> Tensor:
        a = functional.relu(functional.linear(hidden, self.into, self.into_bias))  # (N, U)
        square = ((a @ self.gram + 2 * self.gram_linear) * a).sum(dim=1, keepdim=True) + self.gram_constant
        norm = square.clamp(min=1e-24).sqrt()
        # Positive factors change no relu and no argmax: everything is multiplied by the norm.
        inner = functional.linear(a, self.inner, self.inner_constant).addcmul_(norm, self.inner_bias).relu_()
        scores = functional.linear(inner, self.outer) + functional.linear(a, self.path, self.path_constant)
        return scores.float().addcmul_(norm.float(), self.bias)


def folded_head(field: FeatureField) -> FoldedHead:
    """Compose the layers behind the hidden layer of the point MLP, in double precision."""
    head, up = field.head, field.up_projection
    assert isinstance(head, ClusterHead) and isinstance(up, UpProjection)
    features, feature_bias = (
        value[1:].detach().double() for value in (field.mlp.lin_out.weight, field.mlp.lin_out.bias)
    )
    into, into_bias = _double(up.linear_in)
    last, last_bias = _double(up.linear_out)
    path, path_bias = _double(head.stego_head.linear_path[0])
    inner, inner_bias = _double(head.stego_head.nonlinear_path[0])
    outer, outer_bias = _double(head.stego_head.nonlinear_path[2])
    centres = functional.normalize(head.stego_cluster_head.cluster_centers.detach().double(), dim=1)
    parts = (
        into @ features,
        into @ feature_bias + into_bias,
        last.T @ last,
        last.T @ last_bias,
        last_bias @ last_bias,
        inner @ last,
        inner @ last_bias,
        inner_bias,
        centres @ outer,
        centres @ path @ last,
        centres @ path @ last_bias,
        centres @ (path_bias + outer_bias),
    )
    return FoldedHead(*(part.float().contiguous() for part in parts))


def _double(layer: nn.Module) -> tuple[Tensor, Tensor]:
    return layer.get_parameter("weight").detach().double(), layer.get_parameter("bias").detach().double()
