"""EoMT (Kerssies et al. 2025): DINOv2 as a mask transformer; semantic masks of ADE20K, and features of its last block.

It sees squares: an image is cut into overlapping ones along its longer side, and what they say is averaged.
"""

from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros.scan import Float32, UInt8
from cmp_seg_ros.teachers import pretrained


class Teacher(pretrained.Pretrained):
    """Masks at a quarter of the resolution, features of each patch."""

    model_type, architecture = "eomt", "EomtForUniversalSegmentation"

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, name)
        config = self.network.config
        self.label_space, self.dimension = self.space(), config.hidden_size
        self.side, self.stride = config.image_size, config.patch_size
        self._first = config.num_queries + 1 + config.num_register_tokens  # queries, class token and registers

    def _scores(self, rgb: UInt8) -> Float32:
        return self._over_squares(rgb, lambda pixels: pretrained.query_scores(self.network(pixels)))

    def _features(self, rgb: UInt8) -> Float32:
        def patches(pixels: Any) -> Any:
            found = self.network(pixels, output_hidden_states=True).hidden_states[-1][:, self._first :]
            return found.transpose(1, 2).unflatten(2, (self.side // self.stride,) * 2)

        return self._over_squares(rgb, patches)

    def _over_squares(self, rgb: UInt8, run: Any) -> Float32:
        """(h, w, D) mean of what `run` gives of each square, (1, 3, side, side) -> (1, D, n, n)."""
        pixels = self.pixels(rgb)
        height, width = pixels.shape[2:]
        total, count = np.zeros(0, np.float32), np.zeros(0, np.float32)
        for top, left in corners(height, width, self.side, self.stride):
            values = pretrained.grid(run(pixels[:, :, top : top + self.side, left : left + self.side]))
            stride = self.side // len(values)
            if not total.size:
                total = np.zeros((height // stride, width // stride, values.shape[2]), np.float32)
                count = np.zeros((*total.shape[:2], 1), np.float32)
            square = np.s_[top // stride : top // stride + len(values), left // stride : left // stride + len(values)]
            total[square] += values
            count[square] += 1
        return total / count


def corners(height: int, width: int, side: int, multiple: int) -> list[tuple[int, int]]:
    """(top, left) of as few squares as cover the image, evenly spread, at multiples of `multiple` pixels."""

    def starts(length: int) -> list[int]:
        count = -(-length // side)
        spread = np.linspace(0, length - side, count) / multiple
        return [int(start) * multiple for start in spread.round()]

    return [(top, left) for top in starts(height) for left in starts(width)]


CARDS = (
    pretrained.card(
        Teacher, "eomt-ade20k", "tue-mps/ade20k_semantic_eomt_large_512", "MIT", 1270, "ade20k", dimension=1024
    ),
)
