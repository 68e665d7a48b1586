"""What the classes of a label space are to a robot: floor to drive on, obstacle, ceiling overhead, or moving."""

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UInt8

OBSTACLE, FLOOR, OVERHEAD, MOVING, NOTHING = range(5)
BY_NAME = {"floor": FLOOR, "ceiling": OVERHEAD, "person": MOVING}  # in structural6; all other classes are obstacles


class Roles:
    """Roles of the classes of a space, by the class of structural6 that each is part of, or else by its own name."""

    def __init__(self, space: LabelSpace) -> None:
        self.table = np.full(256, NOTHING, np.uint8)
        names = {c.id: c.name for c in space.classes}
        try:
            structural = LabelSpace.load("structural6")
            known = {c.id: c.name for c in structural.classes}
            names = {i: known.get(int(structural.id_map(space)[i]), "") for i in names}
        except UserError:
            pass
        for i, name in names.items():
            self.table[i] = BY_NAME.get(name, OBSTACLE) if name else NOTHING

    def of(self, label: UInt8) -> npt.NDArray[np.uint8]:
        """(N,) roles of (N,) ids."""
        return self.table[label]
