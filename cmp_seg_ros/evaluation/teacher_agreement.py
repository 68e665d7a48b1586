"""Labels of an image teacher as a source to compare with, where there is no truth: only points that a camera sees."""

from cmp_seg_ros.datasets.frame import Frame
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.pseudo_labels.labeller import PseudoLabeller, Refinements
from cmp_seg_ros.scan import UInt8
from cmp_seg_ros.teachers.base import Teacher

SPACE, VARIANT = "structural6", "pseudo"


class TeacherLabels:
    """A source for `hand.Labelled`: the teacher's labels as they are, projected to the visible points."""

    def __init__(self, teacher: Teacher) -> None:
        self.space = LabelSpace.load(SPACE)
        self._labeller = PseudoLabeller(teacher, self.space, VARIANT, Refinements.none())

    def labels_of(self, frame: Frame) -> UInt8 | None:
        """(N,) labels; None without an image of a calibrated camera. Raises UserError if it cannot be read."""
        if not any(image.camera is not None for image in frame.images.values()):
            return None
        return self._labeller.decide(self._labeller.look(frame)).label
