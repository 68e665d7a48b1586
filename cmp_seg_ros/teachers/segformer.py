"""SegFormer (Xie et al. 2021): masks of ADE20K, and features of its last encoder stage."""

from pathlib import Path

from cmp_seg_ros.scan import Float32, UInt8
from cmp_seg_ros.teachers import pretrained


class Teacher(pretrained.Pretrained):
    """Masks at a quarter of the resolution, features at a 32nd."""

    model_type, architecture = "segformer", "SegformerForSemanticSegmentation"
    side, stride = 640, 32

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, name)
        self.label_space, self.dimension = self.space(), self.network.config.hidden_sizes[-1]

    def _scores(self, rgb: UInt8) -> Float32:
        return pretrained.grid(self.network(self.pixels(rgb)).logits.softmax(dim=1))

    def _features(self, rgb: UInt8) -> Float32:
        return pretrained.grid(self.network.segformer(self.pixels(rgb), output_hidden_states=True).hidden_states[-1])


CARDS = tuple(
    pretrained.card(
        Teacher,
        f"segformer-{size}",
        f"nvidia/segformer-{size}-finetuned-ade-{side}",
        "NVIDIA, not for commerce",
        megabytes,
        "ade20k",
        dimension,
    )
    for size, side, megabytes, dimension in (("b0", "512-512", 15, 256), ("b5", "640-640", 339, 512))
)
