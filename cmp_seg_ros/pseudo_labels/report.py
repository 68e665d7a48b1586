"""What came of pseudo-labels: how many points have one, of which classes, and why others have none."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from cmp_seg_ros.datasets.frame import PointLabels
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.pseudo_labels.labeller import Evidence, Refinements
from cmp_seg_ros.scan import UNLABELLED, Bool


class PseudoReport(BaseModel):
    """report.json of `cmp-seg pseudo-label`. Shares are 0..1.

    Args:
        points: returns of the scans.
        seen: of them, visible to a camera.
        labelled: of the returns, with a label at the end.
        unseen: of the labelled, those that no camera sees in their own scan, but one did in another: votes over time.
        classes: labelled points by class.
        rejected: points by reason: seen ones that are not trusted, outvoted over time, beyond the share to `keep`; a
            point may have several.
        corrected: seen points whose likeliest class the geometry changed.
        unsure: points that are ignored or less probable than asked for.
    """

    model_config = ConfigDict(extra="forbid")

    command: Literal["pseudo-label"] = "pseudo-label"
    finished: bool = False
    input: str
    teacher: str
    label_space: str
    variant: str
    refinements: Refinements
    source: str
    scans: int = 0
    skipped: dict[str, int] = {}
    points: int = 0
    seen: int = 0
    labelled: int = 0
    unseen: int = 0
    classes: dict[str, int] = {}
    rejected: dict[str, int] = {}
    corrected: int = 0
    unsure: int = 0
    problems: list[str] = []
    files: list[str] = []

    def add(self, returns: Bool, evidence: Evidence, stages: Sequence[PointLabels], space: LabelSpace) -> None:
        """Count a scan.

        Args:
            returns: (N,) of the scan.
            evidence: what was seen.
            stages: labels as decided, after votes over time, without improbable ones, and without those beyond `keep`.
            space: of the labels.
        """
        decided, voted, sure, kept = (stage.label != UNLABELLED for stage in stages)
        self.scans += 1
        self.points += int(returns.sum())
        self.seen += int(evidence.seen.sum())
        self.labelled += int(kept.sum())
        self.unseen += int((kept & ~evidence.seen).sum())
        self.corrected += int(evidence.corrected.sum())
        count = np.bincount(stages[-1].label, minlength=256)[space.ids].tolist()
        _add(self.classes, dict(zip(space.names, count, strict=True)))
        rejected = evidence.rejected | {"time": decided & ~voted, "keep": sure & ~kept}
        _add(self.rejected, {reason: int(points.sum()) for reason, points in rejected.items()})
        trusted = ~np.any([*evidence.rejected.values(), ~evidence.seen], axis=0)
        self.unsure += int((trusted & ~decided).sum() + (voted & ~sure).sum())

    def join(self, other: "PseudoReport") -> None:
        """Add what another report counted of other scans."""
        for name in ("scans", "points", "seen", "labelled", "unseen", "corrected", "unsure"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("skipped", "classes", "rejected"):
            _add(getattr(self, name), getattr(other, name))
        self.problems += other.problems
        self.files += other.files

    def to_json(self) -> bytes:
        return (self.model_dump_json(indent=2) + "\n").encode()

    def problem(self, text: str) -> None:
        """Note what went wrong without costing a scan."""
        self.problems.append(text)

    def skip(self, reason: str) -> None:
        """Count a scan that got no labels."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1

    def rare(self, least: float = 0.01) -> list[str]:
        """Classes with less than `least` of the labelled points: a network learns them badly, or not at all."""
        return [name for name, count in self.classes.items() if count < least * max(1, self.labelled)]


def _add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        counts[name] = counts.get(name, 0) + count
