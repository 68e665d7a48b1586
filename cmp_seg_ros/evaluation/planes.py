"""The plane check: how well labels fit the floor, ceiling and walls found in a scan without truth.

planes = find_planes(xyz)                 # geometry/planes.py
score(planes, label, space)               # {"floor": {"recall", "precision", "points"}, "ceiling", "wall"}
"""

from typing import Any

import numpy as np

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.planes import Planes
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Bool, UInt8


def score(planes: Planes, label: UInt8, space: LabelSpace) -> dict[str, Any]:
    """How well (N,) labels fit the planes.

    Returns:
        `{"floor": {"recall", "precision", "points"}, "ceiling": the same, "wall": {"recall", "planes"}}`. Recall: share
        of the points on the plane with its label (on walls: wall or flush). Precision: share of the points with the
        label that are on such a plane, or overhead (`Planes.along`). None without such a plane or label.
    """
    named = class_masks(space)
    result: dict[str, Any] = {}
    for name, levels, allowed in (("floor", planes.floor, planes.floor), ("ceiling", planes.ceiling, planes.overhead)):
        right = named[name][label]
        on = planes.on(levels)
        result[name] = {
            "recall": _share(right, on),
            "precision": _share(planes.along(allowed), right & (label != UNLABELLED)) if levels else None,
            "points": int(on.sum()),
        }
    result["wall"] = {"recall": _share(named["wall"][label], planes.on(planes.walls)), "planes": len(planes.walls)}
    return result


def class_masks(space: LabelSpace) -> dict[str, Bool]:
    """By surface, (256,) which ids of `space` are right on it: floor, ceiling, wall. Raises UserError."""
    space6 = LabelSpace.load("structural6")
    try:
        to6 = space6.id_map(space)
    except UserError:
        to6 = None
    masks = {}
    for surface, names in {"floor": ["floor"], "ceiling": ["ceiling"], "wall": ["wall", "flush"]}.items():
        if to6 is None:
            ids = [c.id for c in space.classes if c.name in names]
            masks[surface] = np.isin(np.arange(256), ids)
        else:
            masks[surface] = np.isin(to6, [c.id for c in space6.classes if c.name in names])
        if not masks[surface].any():
            raise UserError(f"label space '{space.name}' has no class {surface}; check planes with a model that has it")
    return masks


def medians(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure over the scans that have it; None if none has."""

    def median(surface: str, figure: str) -> float | None:
        values = [scan[surface][figure] for scan in scores if scan[surface][figure] is not None]
        return float(np.median(values)) if values else None

    figures = {"floor": ("recall", "precision", "points"), "ceiling": ("recall", "precision", "points")}
    return {
        surface: {figure: median(surface, figure) for figure in names}
        for surface, names in {**figures, "wall": ("recall", "planes")}.items()
    }


def _share(part: Bool, whole: Bool) -> float | None:
    count = int(whole.sum())
    return int((part & whole).sum()) / count if count else None
