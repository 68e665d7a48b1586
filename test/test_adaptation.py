"""What an adaptation holds back, and what it advises."""

from pathlib import Path
from typing import NamedTuple

import pytest

from cmp_seg_ros import UserError
from cmp_seg_ros.adaptation.holding import hold_back
from cmp_seg_ros.adaptation.verdict import Difference, judge
from cmp_seg_ros.datasets.frame import PSEUDO

SECOND = 1_000_000_000


class Entry(NamedTuple):
    sequence: str
    stamp: int


class Set(NamedTuple):
    """As much of a unified set as is looked at."""

    entries: list[Entry]


def test_the_end_of_each_sequence_is_held_back_with_a_gap() -> None:
    drive = [Entry("drive", SECOND * (100 + i)) for i in range(50)]
    pairs = [Entry("pairs", 0) for _ in range(20)]
    found = hold_back(Set(drive + pairs), 0.2)  # type: ignore[arg-type]
    assert found.held_back == [(40, 49), (66, 69)]
    assert found.learnt == [(0, 30), (50, 65)]  # ten seconds are left out where stamps are known
    [first, second] = found.sets(Path("set"), PSEUDO)
    assert (first.first, first.last, second.first, second.last) == (0, 30, 50, 65) and first.splits is None


@pytest.mark.parametrize("entries", [[Entry("a", 0)] * 6, [Entry("a", SECOND * i) for i in range(1, 13)]])
def test_too_short_a_recording_is_refused(entries: list[Entry]) -> None:
    with pytest.raises(UserError, match="too few to hold back 20%"):
        hold_back(Set(entries), 0.2)  # type: ignore[arg-type]


TAUGHT = {"wall": 0.6, "floor": 0.4}
BETTER, WITHIN, WORSE = ((0.02, 0.06), (-0.01, 0.05), (-0.06, -0.02))


@pytest.mark.parametrize(
    ("interval", "simulated", "floor", "advice", "said"),
    [
        (BETTER, 0.89, 0.95, "take", "more than chance"),
        (BETTER, 0.80, 0.95, "unsure", "at a cost"),
        (BETTER, 0.89, 0.85, "unsure", "Plane check: recall of floor 95.0 % before, 85.0 % after"),
        (WITHIN, 0.89, 0.95, "unsure", "within chance"),
        (WORSE, 0.89, 0.95, "keep", "Why it may be no better"),
        (None, 0.89, 0.95, "unsure", "within chance"),
    ],
)
def test_advice(interval: tuple[float, float] | None, simulated: float, floor: float, advice: str, said: str) -> None:
    gain = 0.03 if interval is None else sum(interval) / 2
    teacher = Difference("mIoU", 0.7, 0.7 + gain, interval)
    planes = [Difference("recall of floor", 0.95, floor)]
    verdict = judge(30, teacher, Difference("primary mIoU", 0.89, simulated), planes, TAUGHT)
    assert verdict.advice == advice
    assert said in " ".join(verdict.reasons)


def test_few_images_and_classes_that_were_not_taught_are_said() -> None:
    teacher = Difference("mIoU", 0.7, 0.8, BETTER)
    verdict = judge(4, teacher, Difference("mIoU", 0.9, 0.9), [], {**TAUGHT, "person": 0.0})
    assert any("4 held-back images are few" in reason for reason in verdict.reasons)
    assert any("never said person" in reason for reason in verdict.reasons)
