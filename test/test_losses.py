"""Losses and the schedule against the published ones (reference outputs) and against their definitions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cmp_seg_ros.scan import UNLABELLED
from cmp_seg_ros.training.config import warmup_cosine
from cmp_seg_ros.training.losses import distillation_loss, lovasz_softmax, segmentation_loss

DATA = Path(__file__).parent / "data"  # inputs, weights and outputs of the published modules, at tiny sizes


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(DATA / "wi_loss_metrics.npz"))


def random_case(points: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(points, classes, generator=generator)
    target = torch.randint(0, classes, (points,), generator=generator)
    return logits, target


def test_value_and_gradient_of_the_reference(golden: dict[str, np.ndarray]) -> None:
    logits = torch.from_numpy(golden["logits"]).requires_grad_()
    target = torch.from_numpy(golden["target"])
    loss = segmentation_loss(logits, target)
    loss.backward()
    assert loss.item() == pytest.approx(golden["loss"].item(), abs=1e-5)
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), golden["grad"], atol=1e-6)
    assert segmentation_loss(logits, target, lovasz=0).item() == pytest.approx(golden["ce"].item(), abs=1e-5)


def test_schedule_of_the_reference(golden: dict[str, np.ndarray]) -> None:
    table = [warmup_cosine(iteration, 40, 400, 0.01) for iteration in range(401)]
    np.testing.assert_allclose(table, golden["warmup_cosine"], atol=1e-12)


def test_schedule_beyond_its_ends() -> None:
    assert warmup_cosine(0, 0, 10, 0.1) == 1.0
    assert warmup_cosine(500, 40, 400, 0.01) == pytest.approx(0.01)
    assert warmup_cosine(3, 3, 3, 0.5) == 1.0


def test_lovasz_of_hard_answers_is_one_minus_mean_iou() -> None:
    """At the corners of the simplex the extension is the Jaccard distance itself."""
    _, target = random_case(500, 4)
    answer = torch.where(torch.rand(500, generator=torch.Generator().manual_seed(1)) < 0.6, target, (target + 1) % 4)
    hard = torch.nn.functional.one_hot(answer, 4).float()
    iou = [((answer == c) & (target == c)).sum() / ((answer == c) | (target == c)).sum() for c in range(4)]
    assert lovasz_softmax(hard, target).item() == pytest.approx(1 - float(np.mean(iou)), abs=1e-6)


def test_classes_that_are_absent_do_not_count() -> None:
    target = torch.tensor([0, 0, 2, 2])
    perfect = torch.nn.functional.one_hot(target, 9).float()
    assert lovasz_softmax(perfect, target).item() == 0.0
    assert lovasz_softmax(perfect[:, :3], 2 - target).item() == pytest.approx(1.0)


def test_unlabelled_points_have_no_say() -> None:
    logits, target = random_case(300, 6)
    extra = torch.full((50, 6), 7.0)
    extra[:, 0] = float("nan")
    padded = segmentation_loss(torch.cat([logits, extra]), torch.cat([target, torch.full((50,), UNLABELLED)]))
    assert padded.item() == pytest.approx(segmentation_loss(logits, target).item(), abs=1e-6)


def test_no_labelled_point_gives_zero_and_trains_on() -> None:
    logits = torch.randn(5, 3, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((5,), UNLABELLED))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None and not logits.grad.any()


def test_half_precision_logits_are_evaluated_in_float32() -> None:
    logits, target = random_case(300, 6)
    loss = segmentation_loss(logits.bfloat16(), target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(segmentation_loss(logits.bfloat16().float(), target).item(), abs=1e-6)


def test_weights_count_points_as_often() -> None:
    """A point of weight 2 is the same as two points, also in the Jaccard distance."""
    logits, target = random_case(40, 4)
    weight = torch.randint(0, 4, (40,), generator=torch.Generator().manual_seed(2))
    repeated = segmentation_loss(logits.repeat_interleave(weight, dim=0), target.repeat_interleave(weight))
    assert segmentation_loss(logits, target, weight=weight.float()).item() == pytest.approx(repeated.item(), abs=1e-6)
    ones = segmentation_loss(logits, target, weight=torch.ones(40))
    assert ones.item() == pytest.approx(segmentation_loss(logits, target).item(), abs=1e-6)


def test_distance_of_features() -> None:
    """|s - t| of unit vectors at an angle is 2 sin(angle / 2); lengths do not matter."""
    angle = torch.tensor([0.0, 0.5, 3.0], dtype=torch.float64)
    teacher = torch.stack([angle.cos(), angle.sin()], dim=1) * torch.tensor([[1.0], [7.0], [0.1]])
    student = torch.tensor([[3.0, 0.0]], dtype=torch.float64).expand(3, 2)
    assert distillation_loss(student, teacher).item() == pytest.approx((2 * (angle / 2).sin()).mean().item(), abs=1e-12)
    assert distillation_loss(student[:0], teacher[:0]).item() == 0
