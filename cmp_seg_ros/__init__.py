"""Semantic labels for indoor lidar, online, on a robot.

>>> from cmp_seg_ros import Scan, Segmenter
>>> segmenter = Segmenter.from_bundle("waffleiron24-128")
>>> labels = segmenter(Scan(xyz, intensity))  # labels.label, labels.confidence
"""

from typing import TYPE_CHECKING, Any

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.scan import Labels, Scan

if TYPE_CHECKING:
    from cmp_seg_ros.segmenter import Segmenter

__all__ = ["Labels", "Scan", "Segmenter", "UserError"]


def __getattr__(name: str) -> Any:
    """Import the segmenter, and with it an engine's runtime, only when somebody asks for it."""
    if name == "Segmenter":
        from cmp_seg_ros.segmenter import Segmenter

        return Segmenter
    raise AttributeError(f"module 'cmp_seg_ros' has no attribute '{name}'")
