"""The published losses: cross-entropy plus Lovasz-softmax (WaffleIron), and the distance of features (ScaLR)."""

import torch
from torch import Tensor
from torch.nn import functional

from cmp_seg_ros.scan import UNLABELLED


def segmentation_loss(logits: Tensor, target: Tensor, lovasz: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy + `lovasz` x Lovasz-softmax over the points that are labelled.

    Args:
        logits: (M, C), any float; evaluated in float32 at least.
        target: (M,) int64, UNLABELLED where there is no label.
        weight: (M,) how much each point counts, 0 or more; None: all the same.

    Returns:
        Scalar; 0 (with a gradient of 0) where no point is labelled.
    """
    labelled = target != UNLABELLED  # (M,)
    if weight is not None:
        labelled &= weight > 0
        weight = weight[labelled].to(logits.dtype)
    logits, target = logits[labelled], target[labelled]
    logits = logits.float() if logits.dtype.itemsize < 4 else logits
    if len(target) == 0:
        return logits.sum()
    log_probability = functional.log_softmax(logits, dim=1)  # (M, C)
    if weight is None:
        cross_entropy = functional.nll_loss(log_probability, target)
    else:
        weight = weight.to(log_probability.dtype)
        each = functional.nll_loss(log_probability, target, reduction="none")  # (M,)
        cross_entropy = (weight * each).sum() / weight.sum()
    if lovasz == 0:
        return cross_entropy
    return cross_entropy + lovasz * lovasz_softmax(log_probability.exp(), target, weight)


def lovasz_softmax(probability: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Lovasz-softmax (Berman et al., CVPR 2018, eq. 11), mean over the classes that are present in `target`.

    The convex extension of 1 - IoU: the errors of a class in falling order, each weighted by what its point adds to the
    Jaccard distance when the points before it are already wrong. With weights, a point counts as so many.

    Args:
        probability: (M, C) float32, rows sum to one.
        target: (M,) int64 in 0..C-1.
        weight: (M,) more than 0; None: 1 each.
    """
    present = target.unique()  # (P,)
    truth = (target[:, None] == present).to(probability.dtype)  # (M, P)
    error, order = (truth - probability[:, present]).abs().sort(dim=0, descending=True)  # (M, P)
    truth = truth.gather(0, order)
    with torch.no_grad():
        count = torch.ones_like(truth) if weight is None else weight[order]  # (M, P)
        total = (count * truth).sum(dim=0)  # (P,)
        intersection = total - (count * truth).cumsum(dim=0)
        union = total + (count * (1 - truth)).cumsum(dim=0)
        jaccard = 1 - intersection / union  # (M, P), of the first m points all wrong
        share = torch.diff(jaccard, dim=0, prepend=jaccard.new_zeros(1, len(present)))
    return (error * share).sum(dim=0).mean()


def distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """ScaLR (Puy et al., CVPR 2024): mean distance | s / |s| - t / |t| | of the points' features; 0..2.

    Args:
        student, teacher: (M, D), any float; evaluated in float32 at least.

    Returns:
        Scalar; 0 (with a gradient of 0) without points.
    """
    if len(student) == 0:
        return student.sum()
    student, teacher = (value.float() if value.dtype.itemsize < 4 else value for value in (student, teacher))
    apart = functional.normalize(student, dim=1) - functional.normalize(teacher, dim=1)
    return torch.linalg.vector_norm(apart, dim=1).mean()
