"""Losses of the published training: cross-entropy plus Lovasz-softmax."""

import torch
from torch import Tensor
from torch.nn import functional

from cmp_seg_ros.scan import UNLABELLED


def segmentation_loss(logits: Tensor, target: Tensor, ignore: int = UNLABELLED, lovasz: float = 1.0) -> Tensor:
    """Cross-entropy + `lovasz` x Lovasz-softmax over the points that are labelled.

    Args:
        logits: (M, C), any float; evaluated in float32.
        target: (M,) int64, `ignore` where there is no label.

    Returns:
        Scalar; 0 (with a gradient of 0) where no point is labelled.
    """
    labelled = target != ignore  # (M,)
    logits, target = logits[labelled].float(), target[labelled]
    if len(target) == 0:
        return logits.sum()
    log_probability = functional.log_softmax(logits, dim=1)  # (M, C)
    cross_entropy = functional.nll_loss(log_probability, target)
    if lovasz == 0:
        return cross_entropy
    return cross_entropy + lovasz * lovasz_softmax(log_probability.exp(), target)


def lovasz_softmax(probability: Tensor, target: Tensor) -> Tensor:
    """Lovasz-softmax (Berman et al., CVPR 2018, eq. 11), mean over the classes that are present in `target`.

    The convex extension of 1 - IoU: the errors of a class in falling order, each weighted by what its point adds to the
    Jaccard distance when the points before it are already wrong.

    Args:
        probability: (M, C) float32, rows sum to one.
        target: (M,) int64 in 0..C-1.
    """
    present = target.unique()  # (P,)
    truth = (target[:, None] == present).to(probability.dtype)  # (M, P)
    error, order = (truth - probability[:, present]).abs().sort(dim=0, descending=True)  # (M, P)
    truth = truth.gather(0, order)
    with torch.no_grad():
        total = truth.sum(dim=0)  # (P,)
        intersection = total - truth.cumsum(dim=0)
        union = total + (1 - truth).cumsum(dim=0)
        jaccard = 1 - intersection / union  # (M, P), of the first m points all wrong
        weight = torch.diff(jaccard, dim=0, prepend=jaccard.new_zeros(1, len(present)))
    return (error * weight).sum(dim=0).mean()
