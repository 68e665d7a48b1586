"""What came of pseudo-labels: how many points have one, of which classes, and why others have none."""

from collections import Counter
from collections.abc import Sequence
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
    skipped: Counter[str] = Counter()  # scans that got no labels, by reason
    points: int = 0
    seen: int = 0
    labelled: int = 0
    unseen: int = 0
    classes: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    corrected: int = 0
    unsure: int = 0
    problems: list[str] = []  # that cost no scan
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
        self.classes.update(dict(zip(space.names, count, strict=True)))
        rejected = evidence.rejected | {"time": decided & ~voted, "keep": sure & ~kept}
        self.rejected.update({reason: int(points.sum()) for reason, points in rejected.items()})
        trusted = ~np.any([*evidence.rejected.values(), ~evidence.seen], axis=0)
        self.unsure += int((trusted & ~decided).sum() + (voted & ~sure).sum())

    def join(self, other: "PseudoReport") -> None:
        """Add what another report counted of other scans."""
        for name in ("scans", "points", "seen", "labelled", "unseen", "corrected", "unsure"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("skipped", "classes", "rejected"):
            getattr(self, name).update(getattr(other, name))
        self.problems += other.problems
        self.files += other.files

    def to_json(self) -> bytes:
        return (self.model_dump_json(indent=2) + "\n").encode()
