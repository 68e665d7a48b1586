"""What the classes of a label space are to a robot: floor to drive on, obstacle, ceiling overhead, or moving."""

from contextlib import suppress

import numpy as np

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UInt8

OBSTACLE, FLOOR, OVERHEAD, MOVING, NOTHING = range(5)
BY_NAME = {"floor": FLOOR, "ceiling": OVERHEAD, "person": MOVING}  # in structural6; all other classes are obstacles


def roles_of(space: LabelSpace) -> UInt8:
    """(256,) role of each id, by the class of structural6 that its class is part of, or else by its own name."""
    names = {c.id: c.name for c in space.classes}
    with suppress(UserError):  # its classes are no parts of those
        structural = LabelSpace.load("structural6")
        known = {c.id: c.name for c in structural.classes}
        names = {i: known.get(int(structural.id_map(space)[i]), "") for i in names}
    roles = np.full(256, NOTHING, np.uint8)
    for i, name in names.items():
        roles[i] = BY_NAME.get(name, OBSTACLE) if name else NOTHING
    return roles
