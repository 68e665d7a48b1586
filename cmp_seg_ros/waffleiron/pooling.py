"""The neighbour branch of the embedding in training, without the (M K, F) tensors of its layers.

Its two batch norms and its first layer are one affine map of the differences x_j - x_i, since mean and variance of a
linear map follow from mean and covariance of its input; what follows is computed in pieces that stay in the cache; and
a maximum passes its gradient to one neighbour in K.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cmp_seg_ros.kernels.launch import launch
from cmp_seg_ros.kernels.pooling import PARTS, pool_backward

ROWS = 4096  # of the (M K, F) tensors at a time


def applies(x: Tensor) -> bool:
    """Whether `pool` is for this tensor: on a CPU, and not in mixed precision."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")


def pool(branch: nn.Sequential, x: Tensor, neighbours: Tensor) -> Tensor:
    """(M, C) normalised features and (M, K) neighbours -> (M, F): max over neighbours j of branch(x_j - x_i).

    Updates the running statistics of batch norms that are in training mode.
    """
    rows, count = neighbours.shape
    difference = x.index_select(0, neighbours.flatten()) - x.repeat_interleave(count, dim=0)  # (M K, C)
    before, after = branch[0], branch[2]
    first, second = branch[1].get_parameter("weight"), branch[4].get_parameter("weight")
    mean, variance, covariance = _moments(difference)
    factor, offset = _norm(before, mean, variance, rows * count)  # (C,) each
    weight = first * factor  # (F, C)
    centre, spread = None, None
    if after.training:
        centre = weight @ mean + first @ offset
        spread = ((weight @ covariance) * weight).sum(dim=1)
    scale, shift = _norm(after, centre, spread, rows * count)  # (F,) each
    weight, shift = weight * scale[:, None], shift + scale * (first @ offset)
    pooled: Tensor = _Pool.apply(difference.view(rows, count, -1), weight, shift, second)
    return pooled


def _moments(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and covariance of (R, C) rows."""
    mean = values.mean(dim=0)
    centred = values - mean
    covariance = centred.T @ centred / len(values)
    return mean, covariance.diagonal(), covariance


def _norm(norm: nn.Module, mean: Tensor | None, variance: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
    """Factor and offset of a batch norm; in training with these statistics of its input, which it remembers."""
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    running_mean, running_var = norm.running_mean, norm.running_var
    assert running_mean is not None and running_var is not None and norm.num_batches_tracked is not None
    if norm.training:
        assert mean is not None and variance is not None and norm.momentum is not None
        with torch.no_grad():
            running_mean.lerp_(mean, norm.momentum)
            running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
            norm.num_batches_tracked += 1
    else:
        mean, variance = running_mean, running_var
    factor = norm.weight * (variance + norm.eps).rsqrt()
    return factor, norm.bias - factor * mean


class _Pool(torch.autograd.Function):
    """pooled[m, g] <- max over k of second[g] @ relu(first @ difference[m, k] + shift)"""

    @staticmethod
    def forward(ctx: Any, difference: Tensor, first: Tensor, shift: Tensor, second: Tensor) -> Tensor:
        rows, count, channels = difference.shape
        together = max(1, ROWS // count)
        pooled = difference.new_empty(rows, len(second))
        chosen = torch.empty(rows, len(second), dtype=torch.int64)
        hidden = difference.new_empty(together * count, len(first))
        lifted = difference.new_empty(together * count, len(second))
        for begin in range(0, rows, together):
            end = min(begin + together, rows)
            size = (end - begin) * count
            torch.addmm(shift, difference[begin:end].reshape(size, channels), first.T, out=hidden[:size])
            torch.mm(hidden[:size].relu_(), second.T, out=lifted[:size])
            grouped = lifted[:size].view(end - begin, count, -1)
            torch.max(grouped, dim=1, out=(pooled[begin:end], chosen[begin:end]))
        ctx.save_for_backward(difference, first, shift, second, chosen.to(torch.int32))
        return pooled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        difference, first, shift, second, chosen = ctx.saved_tensors
        inputs = [
            np.ascontiguousarray(value.detach().numpy())
            for value in (gradients[0], chosen, difference, first.T, shift, second)
        ]
        to_difference = np.empty_like(inputs[2])
        sums = [np.zeros((PARTS, *value.shape), value.dtype) for value in inputs[3:]]
        launch(pool_backward, *inputs, to_difference, *sums, blocks=PARTS)
        to_first, to_shift, to_second = (torch.from_numpy(value.sum(axis=0)) for value in sums)
        return torch.from_numpy(to_difference), to_first.T, to_shift, to_second
