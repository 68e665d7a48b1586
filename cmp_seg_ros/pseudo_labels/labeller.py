"""Pseudo-labels of a scan: what the teacher says of its images, carried to the points that the cameras see.

labeller = PseudoLabeller(open_teacher("mosaic"), LabelSpace.load("structural6"))
evidence = labeller.look(frame)         # probabilities of the classes at the points that a camera sees
labels = labeller.decide(evidence)      # PointLabels
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cmp_seg_ros.datasets.frame import CameraImage, Frame, PointLabels
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.planes import find_planes
from cmp_seg_ros.geometry.projection import Projection, project_scan, upright
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.pseudo_labels import refine
from cmp_seg_ros.pseudo_labels.copies import Consensus, consensus
from cmp_seg_ros.pseudo_labels.surfaces import surfaces, with_geometry
from cmp_seg_ros.scan import UNLABELLED, Bool, Float32, UInt8
from cmp_seg_ros.teachers.base import Masks, Teacher


class Refinements(BaseModel):
    """What pseudo-labels are refined by.

    Args:
        confidence: least probability of a label; 0 keeps all.
        keep: share of each class that is kept, the most probable first; 1 keeps all.
        agreement: least share of augmented copies of the image that name the same class; 0 asks about no copies.
        borders: share of the image's width from the border of a mask within which points are rejected; 0 rejects none.
        depth_edges: reject points near an edge in depth as the camera sees it.
        geometry: weigh classes by the surface that a point lies on.
        time: let the scans of a stretch of a sequence vote, by voxel.
    """

    model_config = ConfigDict(extra="forbid")

    confidence: float = Field(default=0.4, ge=0, le=1)
    keep: float = Field(default=0.8, gt=0, le=1)
    agreement: float = Field(default=0.6, ge=0, le=1)
    borders: float = Field(default=0.01, ge=0, le=0.2)
    depth_edges: bool = True
    geometry: bool = True
    time: bool = True

    @classmethod
    def none(cls) -> "Refinements":
        """Raw pseudo-labels."""
        return cls(confidence=0, keep=1, agreement=0, borders=0, depth_edges=False, geometry=False, time=False)


@dataclass(frozen=True)
class View:
    """An image of a frame, its masks, and the frame's N points in it."""

    rgb: UInt8
    masks: Masks
    projection: Projection


@dataclass(frozen=True)
class Evidence:
    """What the cameras of a frame say of its N points.

    Args:
        probabilities: (N, C) of the classes; rows add up to 1 less what the mapping ignores, or to 0: nothing is said.
        seen: (N,) visible to a camera.
        corrected: (N,) whether the geometry changed the likeliest class.
        rejected: by reason, (N,) points that are seen and not to be trusted.
        views: by camera.
    """

    probabilities: Float32
    seen: Bool
    corrected: Bool
    rejected: dict[str, Bool] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)


class PseudoLabeller:
    """Labels points by a teacher.

    Args:
        teacher: gives masks.
        space: of the labels.
        variant: of its mapping from the teacher's label space.
        refinements: see there.

    Raises:
        UserError: the teacher gives no masks; the mapping is missing, or misses a class.
    """

    def __init__(
        self, teacher: Teacher, space: LabelSpace, variant: str = "", refinements: Refinements | None = None
    ) -> None:
        if teacher.label_space is None:
            raise UserError(f"teacher {teacher.name} gives features, but no masks; take another --teacher")
        self.teacher, self.space = teacher, space
        self.refinements = Refinements() if refinements is None else refinements
        self._merge = space.merge_matrix(teacher.label_space, variant)
        self._to_space = space.id_map(teacher.label_space, variant)

    def look(self, frame: Frame) -> Evidence:
        """What the cameras of a frame see. Raises UserError if it has no image that can be used."""
        points = len(frame.scan)
        said, weight = np.zeros((points, len(self.space.classes)), np.float32), np.zeros(points, np.float32)
        rejected: dict[str, Bool] = {}
        views = {}
        for name, image in frame.images.items():
            rgb = read(frame, name, image)
            projection = project(frame, image)
            rows = np.flatnonzero(projection.visible)
            uv = projection.uv[rows]
            found = consensus(self.teacher, rgb, uv, self._merge, augmented=self.refinements.agreement > 0)
            said[rows] += found.probabilities
            weight[rows] += 1
            for reason, untrusted in self._untrusted(found, uv, projection.edge[rows]):
                rejected.setdefault(reason, np.zeros(points, np.bool_))[rows] |= untrusted
            views[name] = View(rgb, found.masks, projection)
        if not views:
            raise UserError("it has no image of a calibrated camera")
        said /= np.maximum(weight, 1)[:, None]
        seen, before = weight > 0, said.argmax(axis=1)
        if self.refinements.geometry:
            said = with_geometry(said, surfaces(find_planes(upright(frame.scan.xyz, frame.T_base_lidar))), self.space)
        return Evidence(said, seen, seen & (said.argmax(axis=1) != before), rejected, views)

    def _untrusted(self, found: Consensus, uv: Float32, edge: Bool) -> Iterator[tuple[str, Bool]]:
        """Reasons to reject some of the M points that a camera sees, and (M,) which."""
        asked, width = self.refinements, found.masks.label.shape[1]
        if asked.agreement:
            yield "agreement", found.agreement < asked.agreement
        if asked.borders:
            yield "borders", refine.near_border(self._to_space[found.masks.label], uv, asked.borders * width)
        if asked.depth_edges:
            yield "depth_edges", edge

    def mask(self, view: View) -> UInt8:
        """(H, W) the teacher's mask of an image, in the label space."""
        return self._to_space[view.masks.label]

    def decide(self, evidence: Evidence) -> PointLabels:
        """The likeliest class of each point that is seen and not rejected, and its probability."""
        label, confidence = refine.decide(evidence.probabilities, self.space.ids)
        return without(PointLabels(self.space, label, confidence), evidence.rejected.values())

    def confident(self, labels: PointLabels) -> PointLabels:
        """Without those that are less probable than asked for."""
        assert labels.confidence is not None
        return without(labels, [labels.confidence < self.refinements.confidence])

    def balanced(self, labels: Sequence[PointLabels]) -> list[PointLabels]:
        """The labels of some scans without the least probable ones of each class in them."""
        if self.refinements.keep == 1 or not labels:
            return list(labels)
        label = np.concatenate([one.label for one in labels])
        rank = refine.rank_in_class(label, np.concatenate([np.array(one.confidence) for one in labels]))
        low = np.split(rank < 1 - self.refinements.keep, np.cumsum([len(one.label) for one in labels])[:-1])
        return [without(one, [rejected]) for one, rejected in zip(labels, low, strict=True)]


def without(labels: PointLabels, rejected: Iterable[Bool]) -> PointLabels:
    """The same labels, UNLABELLED at the points that are rejected."""
    label, confidence = labels.label.copy(), np.array(labels.confidence)
    for points in rejected:
        label[points], confidence[points] = UNLABELLED, 0
    return PointLabels(labels.space, label, confidence)


def read(frame: Frame, name: str, image: CameraImage) -> UInt8:
    """The (H, W, 3) image of a camera. Raises UserError if it is not calibrated, or not as large as calibrated."""
    if image.camera is None:
        raise UserError(
            f"camera {name} of {frame.sequence} is not calibrated; give its intrinsics and T_camera_lidar in a "
            "calibration file (--calibration)"
        )
    rgb = image.rgb()
    height, width = rgb.shape[:2]
    if (width, height) != (image.camera.width, image.camera.height):
        raise UserError(
            f"image {name} is {width} x {height} pixels, its calibration is for {image.camera.width} x "
            f"{image.camera.height}; calibrate this camera at the size of its images"
        )
    return rgb


def project(frame: Frame, image: CameraImage) -> Projection:
    """The points of a frame in an image of it, moved to the image's time where the robot's way is known."""
    assert image.camera is not None
    return project_scan(frame.at_time_of(image), image.camera, np.array(image.camera.T_camera_lidar))
