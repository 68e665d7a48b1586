"""Scans of box rooms, for tests."""

from cmp_seg_ros.datasets import boxes
from cmp_seg_ros.datasets.frame import Returns
from cmp_seg_ros.label_space import LabelSpace


def box_rooms(seeds: range, kind: str = "plain") -> list[Returns]:
    """One scan with 16 rings of each, every fourth point, labelled in structural6."""
    table, found = LabelSpace.load("structural6").id_map(LabelSpace.load("indoor")), []
    for frame in boxes.DataSet(seeds, 1, "rings-16", kind):
        scan = frame.returns()
        found.append(Returns(scan.xyz[::4], scan.intensity[::4], scan.ring[::4], table[scan.label[::4]]))
    return found
