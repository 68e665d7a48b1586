"""Agreement with geometry: a floor is low and level, a wall upright, a ceiling high.

What a point lies on is found without the camera; how often points of each class lie on it is data. By Bayes' rule

    P(class | image, surface) ~ P(class | image) P(surface | class) ** TRUST

which takes back what contradicts the geometry, and decides between classes where the image does not. Teachers are too
sure of themselves: first, a share of the probability of each class goes to the classes that are taken for it (a
transition matrix, as of Patrini et al., CVPR 2017).
"""

import hashlib
from enum import IntEnum
from functools import cache
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from cmp_seg_ros import configuration
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.planes import Planes
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import Float32, UInt8

LEVEL, UPRIGHT = 25, 65  # degrees between a normal and the vertical: less is level, more is upright
LOW, HIGH = 0.3, 1.8  # metres above the floor


class Surface(IntEnum):
    """What a point lies on."""

    floor = 0  # the floor's plane
    ceiling = 1  # the ceiling's plane
    wall = 2  # an upright plane as large as a wall
    level = 3  # another level surface
    upright = 4  # another upright surface
    slanted = 5  # a surface that is neither
    unclear_low = 6  # no surface is found there; near the floor
    unclear = 7
    unclear_high = 8  # above people
    overhead = 9  # level and above people, but not the ceiling's plane: a beam, a duct, the top of a shelf


def surfaces(planes: Planes) -> UInt8:
    """(N,) `Surface` of each point of a scan."""
    cosine = np.abs(planes.normals @ planes.up)
    with np.errstate(invalid="ignore"):  # points without a return
        height = planes.xyz @ planes.up - ground(planes)
        found = np.select([height < LOW, height < HIGH], [Surface.unclear_low, Surface.unclear], Surface.unclear_high)
    found = np.where(np.isfinite(cosine), Surface.slanted, found)
    found[cosine >= np.cos(np.radians(LEVEL))] = Surface.level
    found[cosine <= np.cos(np.radians(UPRIGHT))] = Surface.upright
    for surface, level in (
        (Surface.wall, planes.walls),
        (Surface.overhead, planes.overhead),
        (Surface.ceiling, planes.ceiling),
        (Surface.floor, planes.floor),
    ):
        found[planes.on(level)] = surface
    return found.astype(np.uint8)


def ground(planes: Planes) -> float:
    """Height of the floor below the sensor, metres along the vertical; where none is seen, of the lowest points."""
    if planes.floor:
        return planes.floor[0].offset
    heights = planes.xyz[np.isfinite(planes.xyz).all(axis=1)] @ planes.up
    return float(np.quantile(heights, 0.02)) if len(heights) else 0.0


class SurfaceTable(BaseModel):
    """How often points of each class of structural6 lie on each surface.

    Args:
        trust: exponent; 1 for a teacher whose probabilities are right, more for one that is too sure of itself.
        shares: by surface and class; of a class they add up to 1.
        doubt: by class that the teacher names, and true class: the share of the first that is the second.
    """

    model_config = ConfigDict(extra="forbid")

    trust: float = Field(gt=0, le=3)
    shares: dict[str, dict[str, Annotated[float, Field(gt=0, le=1)]]]
    doubt: dict[str, dict[str, Annotated[float, Field(gt=0, le=0.5)]]] = {}

    @property
    def key(self) -> str:
        """Of its numbers: labels that were made by others are made anew."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]

    def weights(self, space: LabelSpace) -> Float32:
        """(S, C) factors on the probabilities of the classes of a space; 1 for classes that structural6 ignores.

        A class that several of structural6 map to has their mean.

        Raises:
            UserError: neither of the two spaces has a mapping from the other.
        """
        names, members = _structural6().names, _members(space)
        shares = np.array([[self.shares[s.name][name] for name in names] for s in Surface], np.float32)
        count = members.sum(axis=0)
        mean = shares @ members / np.maximum(count, 1)
        return np.where(count > 0, mean**self.trust, 1).astype(np.float32)

    def transition(self, space: LabelSpace) -> Float32:
        """(C, C) the share of what a teacher calls the first class that is the second; rows add up to 1.

        Raises:
            UserError: as for `weights`.
        """
        names, members = _structural6().names, _members(space)
        moved = np.zeros((len(names), len(names)), np.float32)
        for said, others in self.doubt.items():
            for true, share in others.items():
                moved[names.index(said), names.index(true)] = share
        moved += np.diag(1 - moved.sum(axis=1))
        count = members.sum(axis=0)
        out_of = members / np.maximum(count, 1)  # (6, C) the mean, where several of structural6 are one class
        into = members / np.maximum(members.sum(axis=1, keepdims=True), 1)  # (6, C) equal parts
        stays = np.diag(np.where(count > 0, out_of.T @ np.diag(moved), 1))
        np.fill_diagonal(moved, 0)
        return (stays + out_of.T @ moved @ into).astype(np.float32)


@cache
def _structural6() -> LabelSpace:
    return LabelSpace.load("structural6")  # reading it takes longer than all the rest of a scan's weights


def _members(space: LabelSpace) -> Float32:
    """(6, C) whether a class of `space` is one of structural6. Raises UserError: they are unrelated."""
    try:
        return _structural6().merge_matrix(space).T
    except UserError:
        return space.merge_matrix(_structural6())


@cache
def surface_table() -> SurfaceTable:
    """That of the program."""
    return configuration.load(SurfaceTable, "config/pseudo_labels", "table of surfaces", "surfaces")


def with_geometry(probabilities: Float32, surface: npt.NDArray[np.integer], space: LabelSpace) -> Float32:
    """(N, C) probabilities of the classes of `space`, given the (N,) surface of each point.

    What the mapping ignores (1 minus the sum of a row) keeps its share.
    """
    known = probabilities.sum(axis=1, keepdims=True)
    weighted = (probabilities @ surface_table().transition(space)) * surface_table().weights(space)[surface]
    total = weighted.sum(axis=1, keepdims=True)
    return np.where(total > 0, weighted * known / np.maximum(total, 1e-12), 0).astype(np.float32)
