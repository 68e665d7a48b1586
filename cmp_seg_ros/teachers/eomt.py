"""EoMT (Kerssies et al. 2025): DINOv2 as a mask transformer; semantic masks of ADE20K, and features of its last block.

It sees squares: an image is cut into overlapping ones along its longer side, and what they say is averaged.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros.scan import Float32, UInt8
from cmp_seg_ros.teachers import pretrained
from cmp_seg_ros.teachers.base import Card, Features, Masks, hub_files

MODEL = "eomt"


class Teacher(pretrained.Pretrained):
    """Masks at a quarter of the resolution, features of each patch."""

    model_type = MODEL

    def __init__(self, path: Path, name: str = MODEL) -> None:
        super().__init__(path, name, "EomtForUniversalSegmentation")
        config = self.network.config
        self._space = self.label_space = self.space()
        self.dimension = config.hidden_size
        self._side, self._patch = config.image_size, config.patch_size
        self._first = config.num_queries + 1 + config.num_register_tokens  # queries, class token and registers

    def masks(self, rgb: UInt8) -> Masks:
        def scores(pixels: Any) -> Any:
            found = self.network(pixels)
            return pretrained.query_scores(found.class_queries_logits, found.masks_queries_logits)

        return pretrained.as_masks(self._over_squares(rgb, scores), (rgb.shape[0], rgb.shape[1]), self._space)

    def features(self, rgb: UInt8) -> Features:
        def patches(pixels: Any) -> Any:
            found = self.network(pixels, output_hidden_states=True).hidden_states[-1][:, self._first :]
            cells = self._side // self._patch
            return found.transpose(1, 2).reshape(1, -1, cells, cells)

        return Features(self._over_squares(rgb, patches), (rgb.shape[0], rgb.shape[1]))

    def _over_squares(self, rgb: UInt8, run: Any) -> Float32:
        """(h, w, D) mean of what `run` gives of each square, (1, 3, side, side) -> (1, D, n, n)."""
        height, width = pretrained.fitted(rgb.shape[:2], self._side, self._patch)
        pixels = self.pixels(rgb, (height, width))
        total, count = np.zeros(0, np.float32), np.zeros(0, np.float32)
        for top, left in corners(height, width, self._side, self._patch):
            values = pretrained.grid(run(pixels[:, :, top : top + self._side, left : left + self._side]))
            stride = self._side // len(values)
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
    Card(
        name="eomt-ade20k",
        file="eomt-ade20k",
        source="huggingface.co/tue-mps/ade20k_semantic_eomt_large_512 (cmp-seg teachers fetch eomt-ade20k)",
        licence="MIT",
        load=partial(Teacher, name="eomt-ade20k"),
        recognises=partial(pretrained.recognises, model_type=MODEL),
        files=hub_files("tue-mps/ade20k_semantic_eomt_large_512"),
        megabytes=1270,
        label_space="ade20k",
        dimension=1024,
    ),
)
