"""The bundles that users get: their labels on fixed scans stay what they are, and a fault in a bundle is noticed."""

import shutil
from pathlib import Path

import golden
import numpy as np
import pytest
import yaml

from cmp_seg_ros import resources
from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine.parity import LABELS
from cmp_seg_ros.evaluation.metrics import Confusion, readings
from cmp_seg_ros.kernels.vector import HAS_BFLOAT16, HAS_INT8
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UInt8

MARGIN = 0.01  # of mIoU that a bundle may lose
PROCESSORS = 2e-4  # of the labels: another processor adds in another order, and a tie falls the other way


def miou(labels: list[UInt8], space: LabelSpace | None = None) -> float:
    """Over the six classes of the truth, of all scans together."""
    confusion = Confusion(LabelSpace.load("structural6"), space)
    for scan, label in zip(golden.scans(), labels, strict=True):
        confusion.add(scan.truth, label)
    return readings(confusion)[confusion.space.name].miou()


def differing(labels: list[UInt8], others: list[UInt8]) -> float:
    return float(np.mean(np.concatenate(labels) != np.concatenate(others)))


def test_every_shipped_bundle_is_held() -> None:
    kinds = {name: Bundle.find(name).description.kind for name in resources.names("models")}
    assert list(golden.BUNDLES) == [name for name, kind in kinds.items() if kind == "segmentation"]


@pytest.mark.parametrize("bundle", golden.BUNDLES)
def test_labels_are_what_they_were(bundle: str) -> None:
    assert differing(golden.label(bundle), golden.labels(bundle)) <= PROCESSORS


@pytest.mark.parametrize(("bundle", "least"), list(zip(golden.BUNDLES, (0.7, 0.45), strict=True)))
def test_accuracy_is_what_it_was(bundle: str, least: float) -> None:
    assert miou(golden.label(bundle)) >= miou(golden.labels(bundle)) - MARGIN > least


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_narrower_numbers_agree(precision: str) -> None:
    if not {"int8": HAS_INT8, "bf16": HAS_BFLOAT16}[precision]:
        pytest.skip(f"this processor has no {precision}")
    bundle = golden.BUNDLES[0]
    assert differing(golden.label(bundle, f"cpu-{precision}"), golden.labels(bundle)) <= 1 - LABELS


def test_two_classes_swapped_in_a_bundle_are_noticed(tmp_path: Path) -> None:
    name = golden.BUNDLES[0]
    swapped = tmp_path / name
    shutil.copytree(resources.resource(f"models/{name}"), swapped)
    description = yaml.safe_load((swapped / "bundle.yaml").read_text())
    classes = description["label_space"]["classes"]
    classes[0]["name"], classes[3]["name"] = classes[3]["name"], classes[0]["name"]  # wall and flush
    (swapped / "bundle.yaml").write_text(yaml.safe_dump(description))
    space = LabelSpace.model_validate(description["label_space"])
    assert miou(golden.label(swapped), space) < miou(golden.labels(name)) - MARGIN


def test_any_two_classes_swapped_cost_more_than_the_margin() -> None:
    """The scans show enough of every class for the test above to hold of every pair."""
    labels = golden.labels(golden.BUNDLES[0])
    for one in range(6):
        for other in range(one):
            table = np.arange(256, dtype=np.uint8)
            table[[one, other]] = other, one
            assert miou([table[label] for label in labels]) < miou(labels) - MARGIN
