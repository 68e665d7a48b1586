"""MOSAIC (Google, MLPerf Mobile): a small segmentation network for the 31 most frequent classes of ADE20K.

It resizes by corners of pixels: cell k of a grid of w columns is at pixel 512 k / w of its input, not around the middle
of the pixels that the cell covers (its own logits, upsampled so, give its output bit by bit).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import Float32, UInt8
from cmp_seg_ros.teachers import base
from cmp_seg_ros.teachers.base import Card, Features, Masks, WeightFile

SIZE = 512  # pixels, of the network's input
LOGITS, FEATURES = 240, 236  # tensors: (1, 128, 128, 32) and (1, 64, 64, 64)
FILE = "mosaic_r4_ade20k31_uint8.tflite"
WHERE, PUBLISHED = "vision/mosaic/models_and_checkpoints/R4", "mobile_segmenter_r4_quant_argmax_uint8.tflite"
SHA256 = "da8b3822a22fde45ecaf0ff32022287eff58b500096971b04f3c1b292da66a3c"


class Teacher(base.Teacher):
    """MOSAIC R4 on the processor: some 50 ms an image on two cores.

    Args:
        path: of the .tflite file.

    Raises:
        UserError: ai-edge-litert is not installed, or the file is not MOSAIC's.
    """

    name = "mosaic"
    dimension = 64

    def __init__(self, path: Path) -> None:
        self.label_space = LabelSpace.load("mosaic32")
        self._network = _open(path)
        given, found = self._network.get_input_details()[0], self._network.get_output_details()[0]
        if tuple(given["shape"]) != (1, SIZE, SIZE, 3) or given["dtype"] != np.uint8:
            raise UserError(
                f"{path} takes {given['shape']} of {given['dtype'].__name__}, MOSAIC 1 x 512 x 512 x 3 of uint8"
            )
        self._given, self._found = given["index"], found["index"]
        self._scale = {t["index"]: t["quantization"] for t in self._network.get_tensor_details()}

    def masks(self, rgb: UInt8) -> Masks:
        from PIL import Image
        from scipy.special import softmax

        self._run(rgb)
        height, width = rgb.shape[:2]
        label = self._network.get_tensor(self._found).reshape(SIZE, SIZE).astype(np.uint8)
        probabilities = softmax(self._values(LOGITS), axis=2)
        return Masks(
            np.asarray(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST)),
            base.resized(probabilities.max(axis=2), (height, width), _shift(probabilities)),
            probabilities,
            _shift(probabilities),
        )

    def features(self, rgb: UInt8) -> Features:
        self._run(rgb)
        values = self._values(FEATURES)
        return Features(values, (rgb.shape[0], rgb.shape[1]), _shift(values))

    def _run(self, rgb: UInt8) -> None:
        from PIL import Image

        square = np.asarray(Image.fromarray(rgb).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        self._network.set_tensor(self._given, square[None])
        self._network.invoke()

    def _values(self, tensor: int) -> Float32:
        """(h, w, D) of a quantised tensor of the last image."""
        scale, zero = self._scale[tensor]
        values: Float32 = (self._network.get_tensor(tensor)[0].astype(np.float32) - zero) * np.float32(scale)
        return values


def _open(path: Path) -> Any:
    """The network, which keeps all its tensors."""
    import warnings

    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError(f"the teacher needs ai-edge-litert ({error}); pip install ai-edge-litert") from error
    try:
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore", UserWarning)  # that keeping tensors takes memory
            network = Interpreter(str(path), experimental_preserve_all_tensors=True)
            network.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path} is no model that ai-edge-litert runs: {' '.join(str(error).split())}") from error
    return network


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what the library writes to stderr past Python: which delegate it has made. Its errors are exceptions."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _shift(grid: Float32) -> float:
    """Cells from where pixel centres would be sampled to where this network has them (see above, and `base.sample`)."""
    return 0.5 - 0.5 * grid.shape[1] / SIZE


CARDS = (
    Card(
        name="mosaic",
        file=FILE,
        source=f"{PUBLISHED} of github.com/mlcommons/mobile_open, in {WHERE} (cmp-seg teachers fetch mosaic)",
        licence="Apache-2.0",
        load=Teacher,
        recognises=lambda path: path.suffix == ".tflite",
        files=(WeightFile(PUBLISHED, f"https://github.com/mlcommons/mobile_open/raw/86a8737/{WHERE}", SHA256),),
        megabytes=2,
        label_space="mosaic32",
        dimension=64,
    ),
)
