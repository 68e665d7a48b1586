"""Textured meshes: images, and texture coordinates of every corner."""

from dataclasses import dataclass

import numpy as np

from cmp_seg_ros.scan import Float32, Int32, UInt8
from cmp_seg_ros.simulation.mesh import Mesh

GAMMA = 1.4  # of the renderer's images; textures are converted to its linear light


@dataclass(frozen=True)
class TexturedMesh(Mesh):
    """A mesh whose colours come from images, multiplied by the colour of the triangle's material.

    Args:
        uv: (T, 3, 2) position of each corner in its image, 0..1 from the lower left corner; images repeat beyond.
        image: (T,) index into `images`.
        images: (H, W, 3) uint8 each.
    """

    uv: Float32
    image: Int32
    images: tuple[UInt8, ...]

    def color(self, triangles: Int32, places: Float32) -> Float32:
        """(N,) triangles and (N, 3) points on them -> (N, 3) colours of their images, 0..1, linear."""
        weights = barycentric(self.triangles[triangles], places)
        uv = (weights[:, :, None] * self.uv[triangles]).sum(axis=1)  # (N, 2)
        image, colors = self.image[triangles], np.zeros((len(triangles), 3), dtype=np.float32)
        for index in np.unique(image):
            rows, picture = np.flatnonzero(image == index), self.images[index]
            height, width = picture.shape[:2]
            column = np.floor(uv[rows, 0] * width).astype(np.int64) % width
            row = np.floor((1 - uv[rows, 1]) * height).astype(np.int64) % height
            colors[rows] = (picture[row, column] / np.float32(255)) ** np.float32(GAMMA)
        return colors


def barycentric(corners: Float32, places: Float32) -> Float32:
    """(N, 3, 3) triangles and (N, 3) points in their planes -> (N, 3) barycentric weights (Ericson 2005, 3.4)."""
    a, b, c = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    p = places - a
    bb, bc, cc = (b * b).sum(axis=1), (b * c).sum(axis=1), (c * c).sum(axis=1)
    pb, pc = (p * b).sum(axis=1), (p * c).sum(axis=1)
    area = np.maximum(bb * cc - bc * bc, 1e-20)
    v, w = (cc * pb - bc * pc) / area, (bb * pc - bc * pb) / area
    return np.stack([1 - v - w, v, w], axis=1).astype(np.float32)
