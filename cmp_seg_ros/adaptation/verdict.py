"""Whether to take the new bundle, in words, from what both bundles score."""

from typing import Literal, NamedTuple

from cmp_seg_ros.evaluation.compare import Comparison, Figure
from cmp_seg_ros.evaluation.report import PlaneReport

LEAST_GAIN = 0.005  # of agreement with the teacher that counts
LOST = 0.01  # of the IoU of a class that is worth a word
FORGOTTEN = 0.01  # of mIoU in simulated buildings that may be lost
OFF_PLANES = 0.02  # of recall or precision of planes that may be lost
FEW_IMAGES = 20
RARE = 0.005  # of the pseudo-labels

Advice = Literal["take", "keep", "unsure"]


class Verdict(NamedTuple):
    """Take the new bundle, keep the old one, or look at the pictures first; and the reasons, a sentence each."""

    advice: Advice
    title: str
    reasons: list[str]


class Difference(NamedTuple):
    """A score of both bundles. `interval`: of the difference, where it is known."""

    name: str
    old: float | None
    new: float | None
    interval: tuple[float, float] | None = None

    @property
    def change(self) -> float:
        """0 where one is not known."""
        return 0.0 if self.old is None or self.new is None else self.new - self.old


def judge(
    images: int,
    teacher: Difference,
    classes: Difference,
    by_class: list[Difference],
    simulated: Difference,
    planes: list[Difference],
    taught: dict[str, float],
) -> Verdict:
    """Compare the shipped bundle and the new one.

    Args:
        images: held back.
        teacher: share of the points of these that are labelled as the teacher does: large classes decide.
        classes: mean IoU against the teacher: each class weighs alike, but some it never names. Neither is the truth:
            where one gains and the other loses, pictures must tell (docs/adapt.md has such a case).
        by_class: IoU of each class against the teacher.
        simulated: primary mIoU on simulated buildings.
        planes: figures of the plane check.
        taught: share of each class in the pseudo-labels that were learnt from.
    """
    (better, worse), (finer, coarser) = _gains(teacher), _gains(classes)
    forgets = simulated.change < -FORGOTTEN
    off = [one for one in planes if one.change < -OFF_PLANES]
    against = f"Against the teacher on {images} held-back images"
    reasons = [_said(teacher, against, better or worse), _said(classes, against, finer or coarser)]
    if losses := [_lost(one) for one in by_class if one.change <= -LOST]:
        reasons.append(f"Classes that agree less with the teacher (IoU): {'; '.join(losses)}.")
    reasons.append(_said(simulated, "On simulated buildings, which show what was forgotten"))
    reasons += [_said(one, "Plane check") for one in off] or [
        f"The plane check is no worse by more than {100 * OFF_PLANES:.0f} points."
    ]
    if images < FEW_IMAGES:
        reasons.append(f"{images} held-back images are few: look at the pictures before you trust these figures.")
    if rare := [name for name, share in taught.items() if share < RARE]:
        reasons.append(f"The teacher hardly ever said {', '.join(rare)}: little was learnt about that, or tested.")
    harmless = not forgets and not off
    if better and not coarser and harmless:
        return Verdict("take", "Take the new bundle", reasons)
    if better or finer or (teacher.change > 0 and harmless and not worse):
        if worse or coarser:
            reasons.append(
                "It agrees better with the teacher in one way and worse in the other: the pictures must tell."
            )
        elif harmless:
            reasons.append("The gain is small, or within chance. A longer recording, with more rooms, would tell.")
        else:
            reasons.append("It agrees better with the teacher, but at a cost: see above.")
        return Verdict("unsure", "Look at the pictures before you take the new bundle", reasons)
    reasons.append(
        "Why it may be no better: the teacher is wrong where the bundle was right, the recording shows little that the "
        "bundle did not know, the calibration is off, or the time was too short. Look at the pictures of pseudo-labels."
    )
    return Verdict("keep", "Keep the shipped bundle", reasons)


def _gains(one: Difference) -> tuple[bool, bool]:
    """Whether a score is higher by what counts, and whether it is lower, each beyond chance."""
    low, high = one.interval or (float("-inf"), float("inf"))
    return low > 0 and one.change >= LEAST_GAIN, high < 0 and one.change <= -LEAST_GAIN


def _lost(one: Difference) -> str:
    chance = " (within chance)" if one.interval is not None and one.interval[1] >= 0 else ""
    return f"{one.name} {100 * (one.old or 0):.1f} % before, {100 * (one.new or 0):.1f} % after{chance}"


def _said(one: Difference, where: str, sure: bool | None = None) -> str:
    if one.old is None or one.new is None:
        return f"{where}: {one.name} was not measured."
    chance = "" if sure is None else " (more than chance)" if sure else " (within chance)"
    interval = f", 95 % interval {100 * one.interval[0]:+.1f} to {100 * one.interval[1]:+.1f}" if one.interval else ""
    text = f"{where}: {one.name} {100 * one.old:.1f} % before, {100 * one.new:.1f} % after, {100 * one.change:+.1f}"
    return f"{text} points{interval}{chance}."


def plane_differences(old: PlaneReport | None, new: PlaneReport | None) -> list[Difference]:
    """Medians of the plane check over scans."""
    if old is None or new is None:
        return []
    a, b = old.median, new.median
    found = []
    for name, before, after in (("floor", a.floor, b.floor), ("ceiling", a.ceiling, b.ceiling)):
        found.append(Difference(f"recall of {name}", before.recall, after.recall))
        found.append(Difference(f"precision of {name}", before.precision, after.precision))
    return [*found, Difference("recall of wall", a.wall.recall, b.wall.recall)]


def figure(comparison: Comparison, section: str, name: str) -> Difference:
    """A figure of a comparison, whose section's title begins so."""
    for one in comparison.sections:
        found: Figure | None = next((each for each in one.figures if each.name == name), None)
        if one.title.startswith(section) and found is not None:
            return Difference(name, found.a, found.b, found.interval)
    return Difference(name, None, None)
