"""SegFormer (Xie et al. 2021): masks of ADE20K, and features of its last encoder stage."""

from functools import partial
from pathlib import Path

from cmp_seg_ros.scan import UInt8
from cmp_seg_ros.teachers import pretrained
from cmp_seg_ros.teachers.base import Card, Features, Masks, hub_files

SIDE = 640  # pixels of the shorter side, as in its training
STRIDE = 32  # of the last stage
MODEL = "segformer"


class Teacher(pretrained.Pretrained):
    """Masks at a quarter of the resolution, features at a 32nd."""

    model_type = MODEL

    def __init__(self, path: Path, name: str = MODEL) -> None:
        super().__init__(path, name, "SegformerForSemanticSegmentation")
        self._space = self.label_space = self.space()
        self.dimension = self.network.config.hidden_sizes[-1]

    def masks(self, rgb: UInt8) -> Masks:
        pixels = self.pixels(rgb, pretrained.fitted(rgb.shape[:2], SIDE, STRIDE))
        scores = self.network(pixels).logits.softmax(dim=1)
        return pretrained.as_masks(pretrained.grid(scores), (rgb.shape[0], rgb.shape[1]), self._space)

    def features(self, rgb: UInt8) -> Features:
        pixels = self.pixels(rgb, pretrained.fitted(rgb.shape[:2], SIDE, STRIDE))
        found = self.network.segformer(pixels, output_hidden_states=True).hidden_states[-1]
        return Features(pretrained.grid(found), (rgb.shape[0], rgb.shape[1]))


CARDS = tuple(
    Card(
        name=f"{MODEL}-{size}",
        file=f"{MODEL}-{size}",
        source=f"huggingface.co/nvidia/segformer-{size}-finetuned-ade-{side} (cmp-seg teachers fetch {MODEL}-{size})",
        licence="NVIDIA, not for commerce",
        load=partial(Teacher, name=f"{MODEL}-{size}"),
        recognises=partial(pretrained.recognises, model_type=MODEL),
        files=hub_files(f"nvidia/segformer-{size}-finetuned-ade-{side}"),
        megabytes=megabytes,
        label_space="ade20k",
        dimension=dimension,
    )
    for size, side, megabytes, dimension in (("b0", "512-512", 15, 256), ("b5", "640-640", 339, 512))
)
