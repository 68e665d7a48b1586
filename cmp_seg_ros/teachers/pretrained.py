"""What the teachers of the package transformers share: local weights, sizes of images, mask queries as probabilities.

Nothing is downloaded here: `cmp-seg teachers fetch NAME` does.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import Float32, UInt8
from cmp_seg_ros.teachers import base
from cmp_seg_ros.teachers.base import HUB, Card, Features, Masks, WeightFile

SPACES = {150: "ade20k", 133: "coco"}  # label spaces by number of classes
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for weights that name no others
FINEST = 256  # cells of a grid in which masks are compared, along its shorter side
CONFIG, PROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"


class Pretrained(base.Teacher):
    """A network of transformers with weights in a folder: on a GPU if there is one, else on the processor.

    A subclass says what network it is, how large it sees images, and what it makes of one.

    Args:
        path: of the folder.
        name: of the teacher.

    Raises:
        UserError: transformers is not installed; the folder lacks a file, or holds another network, or is damaged.
    """

    label_space: LabelSpace | None = None
    model_type: str  # in config.json
    architecture: str  # class of transformers
    side: int  # pixels of the shorter side of an image, as in the network's training
    stride: int  # both sides are multiples of it

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.network = _load(path, self.architecture, self.model_type).eval().requires_grad_(False)
        import torch

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network.to(self.device)
        processor = _json(path / PROCESSOR) if (path / PROCESSOR).is_file() else {}
        self._mean = np.array(processor.get("image_mean", MEAN), np.float32)
        self._std = np.array(processor.get("image_std", STD), np.float32)

    def masks(self, rgb: UInt8) -> Masks:
        """The label of a pixel is that of the likeliest class in the four cells around it."""
        if self.label_space is None:
            return super().masks(rgb)
        scores, size = self._scores(rgb), (rgb.shape[0], rgb.shape[1])
        probabilities = scores / np.maximum(scores.sum(axis=2, keepdims=True), 1e-12)
        finer = _upsampled(probabilities, size)
        label = base.nearest(self.label_space.ids[finer.argmax(axis=2)], size)
        return Masks(label, base.resized(finer.max(axis=2), size), probabilities)

    def features(self, rgb: UInt8) -> Features:
        return Features(self._features(rgb), (rgb.shape[0], rgb.shape[1]))

    def _scores(self, rgb: UInt8) -> Float32:
        """(h, w, C) positive scores of the classes."""
        raise NotImplementedError

    def _features(self, rgb: UInt8) -> Float32:
        """(h, w, D)"""
        raise NotImplementedError

    def pixels(self, rgb: UInt8) -> Any:
        """(H, W, 3) image -> (1, 3, h, w) normalised tensor of the size that the network sees."""
        import torch
        from PIL import Image

        height, width = fitted(rgb.shape[:2], self.side, self.stride)
        resized = np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR), np.float32)
        normalised = (resized / 255 - self._mean) / self._std
        return torch.from_numpy(np.ascontiguousarray(normalised.transpose(2, 0, 1))[None]).to(self.device)

    def space(self) -> LabelSpace:
        """The label space of as many classes as the network has. Raises UserError if none is known."""
        count = self.network.config.num_labels
        if count not in SPACES:
            known = ", ".join(f"{number} ({name})" for number, name in SPACES.items())
            raise UserError(f"weights of teacher {self.name} are for {count} classes; known: {known}")
        return LabelSpace.load(SPACES[count])


def fitted(size: tuple[int, int], side: int, multiple: int) -> tuple[int, int]:
    """(height, width) about as long as wide as before, the shorter side near `side`, both multiples of `multiple`."""
    scale = side / min(size)
    height, width = (max(1, round(length * scale / multiple)) * multiple for length in size)
    return height, width


def grid(tensor: Any) -> Float32:
    """(1, D, h, w) tensor -> (h, w, D)."""
    values: Float32 = tensor[0].permute(1, 2, 0).float().cpu().contiguous().numpy()
    return values


def query_scores(found: Any) -> Any:
    """(1, C, h, w) sums over queries of P(class | query) P(pixel | query) (Cheng et al. 2021, MaskFormer, 3.4).

    Args:
        found: a network's answer: (1, Q, C + 1) logits of classes, the last "none", and (1, Q, h, w) of masks.
    """
    import torch

    classes = found.class_queries_logits.softmax(dim=-1)[..., :-1]
    return torch.einsum("bqc,bqhw->bchw", classes, found.masks_queries_logits.sigmoid())


def _upsampled(probabilities: Float32, size: tuple[int, int]) -> Float32:
    """(h, w, C) -> a grid with FINEST cells along its shorter side, if that is finer, by bilinear interpolation."""
    import torch

    scale = min(FINEST, min(size)) / min(probabilities.shape[:2])
    if scale <= 1:
        return probabilities
    tensor = torch.from_numpy(probabilities).permute(2, 0, 1)[None]
    return grid(torch.nn.functional.interpolate(tensor, scale_factor=scale, mode="bilinear", align_corners=False))


def card(
    teacher: type[Pretrained],
    name: str,
    repository: str,
    licence: str,
    megabytes: int,
    label_space: str,
    dimension: int,
    more: tuple[str, ...] = (),
) -> Card:
    """The card of a network in a repository of Hugging Face, with `more` files than the usual ones."""
    at = f"{HUB}/{repository}/resolve/main"
    weights = WeightFile(WEIGHTS, at, instead=("pytorch_model.bin",))
    return Card(
        name=name,
        file=name,
        source=f"huggingface.co/{repository} (cmp-seg teachers fetch {name})",
        licence=licence,
        load=partial(teacher, name=name),
        recognises=partial(_recognises, model_type=teacher.model_type),
        files=(*(WeightFile(file, at) for file in (CONFIG, PROCESSOR, *more)), weights),
        megabytes=megabytes,
        label_space=label_space,
        dimension=dimension,
    )


def _recognises(path: Path, model_type: str) -> bool:
    """Whether a folder holds a network of transformers of that type."""
    try:
        return bool(_json(path / CONFIG).get("model_type") == model_type)
    except UserError:
        return False


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch the teacher again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no configuration of a network; fetch the teacher again")
    return content


def _load(path: Path, architecture: str, model_type: str) -> Any:
    found = _json(path / CONFIG).get("model_type")
    if found != model_type:
        raise UserError(f"{path} holds weights of {found}, not of {model_type}; give the folder of the right teacher")
    try:
        import transformers
    except ImportError as error:
        raise UserError(f"this teacher needs transformers ({error}); pip install transformers") from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        network, about = getattr(transformers, architecture).from_pretrained(
            path, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # of safetensors, torch or transformers, as the file is damaged
        remedy = f"remove {path} and fetch the teacher again"
        raise UserError(f"weights in {path} cannot be read: {' '.join(str(error).split())[:300]}; {remedy}") from error
    if missing := sorted(about["missing_keys"]):
        raise UserError(
            f"weights in {path} lack {len(missing)} tensors, such as {missing[0]}: they are of another network than "
            f"{CONFIG} says; fetch the teacher again"
        )
    return network
