"""Rows of a suite on real scans, which have no truth.

Their labels are compared with the planes that geometry finds, and, where images come with the scans, with what a
teacher sees at the points' pixels.
"""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cmp_seg_ros.datasets import open_input
from cmp_seg_ros.datasets.frame import CameraImage, Frame
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation import plane_check
from cmp_seg_ros.evaluation.pipeline import Model, results
from cmp_seg_ros.geometry.planes import find_planes
from cmp_seg_ros.geometry.projection import project_scan, upright
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Labels
from cmp_seg_ros.teachers.base import Teacher

TEACHER = "mosaic"
SURE = 0.8  # confidence of the teacher from which on it has a say
SPACE = "structural6"
# What labels are right where the teacher sees such a class, and what it may not mistake for it.
RIGHT = {"wall": ("wall", "flush"), "floor": ("floor",), "ceiling": ("ceiling",), "person": ("person",)}


class Recording(BaseModel):
    """Real scans.

    Args:
        path: of a file, or a folder of files or of pairs with their calibration, in the data folder.
        people: whether there are people; if not, no point should be labelled so.
        teacher: whether a teacher looks at the images.
        false_person: at most so many of the points may be labelled person, where there are no people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    people: bool = True
    teacher: bool = False
    false_person: float | None = Field(default=None, ge=0, le=1)


class Agreement:
    """Counts how often labels agree with a teacher, by the class that it sees with confidence."""

    def __init__(self, space: LabelSpace, teacher: Teacher) -> None:
        if teacher.label_space is None:
            raise UserError(f"teacher {teacher.name} gives no classes; take one with masks")
        self.teacher, common = teacher, LabelSpace.load(SPACE)
        self.common, self._said, self._seen = common, common.id_map(space), common.id_map(teacher.label_space)
        self.points, self.agreeing = dict.fromkeys(RIGHT, 0), dict.fromkeys(RIGHT, 0)

    def add(self, frame: Frame, image: CameraImage, labels: Labels) -> None:
        """Count the labelled points of a frame that an image shows. Raises UserError where it cannot be read."""
        if image.camera is None:
            return
        masks = self.teacher.masks(image.rgb())
        seen = project_scan(frame.scan.xyz, image.camera, image.camera.T_camera_lidar)
        chosen = np.flatnonzero(seen.visible & (labels.label != UNLABELLED))
        column, row = np.rint(seen.uv[chosen]).astype(np.intp).T
        height, width = masks.label.shape
        row, column = row.clip(0, height - 1), column.clip(0, width - 1)
        sure = masks.confidence[row, column] >= SURE
        teacher, said = self._seen[masks.label[row, column]][sure], self._said[labels.label[chosen]][sure]
        for name, right in RIGHT.items():
            there = teacher == self._id(name)
            self.points[name] += int(there.sum())
            self.agreeing[name] += int(np.isin(said[there], [self._id(one) for one in right]).sum())

    def _id(self, name: str) -> int:
        return int(self.common.ids[self.common.names.index(name)])

    def report(self) -> dict[str, Any]:
        """By class: points that the teacher sees it at, and the share of them whose label agrees."""
        return {
            name: {"points": count, "agrees": self.agreeing[name] / count if count else None}
            for name, count in self.points.items()
        }


def score(row: Recording, folder: Path, labeller: Model, teacher: Teacher | None) -> dict[str, Any]:
    """The figures of a row: scans, share of each class, planes (medians), and the teacher's where it looks.

    Raises:
        UserError: the scans cannot be read, or have no image where a teacher shall look.
    """
    path = folder / row.path
    data = open_input(path, "", SensorSet.around(path, None, ""), "")
    space = labeller.label_space
    agreement = Agreement(space, teacher) if row.teacher and teacher is not None else None
    ids, found, unlikeness, images = np.zeros(256, np.int64), [], [], 0
    for result in results(data, labeller):
        frame, labels = result.frame, result.labels
        if labels is None:
            raise UserError(f"{frame.key} of {path}: {result.skipped}")
        ids += np.bincount(labels.label, minlength=256)
        planes = find_planes(upright(frame.scan.xyz, frame.T_base_lidar))
        found.append(plane_check.score(planes, labels.label, space))
        unlikeness += [] if labels.unlikeness is None else [labels.unlikeness]
        for image in frame.images.values() if agreement else ():
            assert agreement is not None
            agreement.add(frame, image, labels)
            images += 1
    if not found:
        raise UserError(f"{path} has no scans: {'; '.join(data.problems)}")
    if agreement and not images:
        raise UserError(f"{path} has no images with a calibration for the teacher to look at")
    share = dict(zip(space.names, (ids[space.ids] / max(1, ids[space.ids].sum())).tolist(), strict=True))
    return {
        **row.model_dump(exclude={"false_person"}),
        "scans": len(found),
        "share": share,
        "false_person": None if row.people else share.get("person"),
        "unlikeness": float(np.median(unlikeness)) if unlikeness else None,
        "planes": plane_check.medians(found).model_dump(),
        "agreement": agreement.report() if agreement else None,
    }
