"""What came of pseudo-labels: how many points have one, of which classes, and why others have none."""

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
        labelled: of them, with a label at the end; over time also such as no camera sees in their own scan.
        classes: labelled points by class.
        rejected: seen points by reason; a point may have several.
        unsure: seen points that are ignored or less probable than asked for.
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
    classes: dict[str, int] = {}
    rejected: dict[str, int] = {}
    unsure: int = 0
    problems: list[str] = []
    files: list[str] = []

    def add(self, returns: Bool, evidence: Evidence, labels: PointLabels, space: LabelSpace) -> None:
        """Count a scan: (N,) its returns, what was seen, and its final labels."""
        self.scans += 1
        self.points += int(returns.sum())
        self.seen += int(evidence.seen.sum())
        self.labelled += int((labels.label != UNLABELLED).sum())
        for name, count in zip(space.names, np.bincount(labels.label, minlength=256)[space.ids].tolist(), strict=True):
            self.classes[name] = self.classes.get(name, 0) + count
        trusted = evidence.seen.copy()
        for reason, points in evidence.rejected.items():
            self.rejected[reason] = self.rejected.get(reason, 0) + int(points.sum())
            trusted &= ~points
        self.unsure += int((trusted & (labels.label == UNLABELLED)).sum())

    def join(self, other: "PseudoReport") -> None:
        """Add what another report counted of other scans."""
        for name in ("scans", "points", "seen", "labelled", "unsure"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for counts, more in (
            (self.skipped, other.skipped),
            (self.classes, other.classes),
            (self.rejected, other.rejected),
        ):
            for name, count in more.items():
                counts[name] = counts.get(name, 0) + count
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
