"""DINOv2 (Oquab et al. 2023): features only; a ViT that was trained without labels, as ScaLR distils it."""

from pathlib import Path

from cmp_seg_ros.scan import Float32, UInt8
from cmp_seg_ros.teachers import pretrained


class Teacher(pretrained.Pretrained):
    """Features of the last block before the final norm (`x_pre_norm` of ScaLR), a cell for each patch."""

    model_type, architecture = "dinov2", "Dinov2Model"
    side = 518  # what the network saw last in its training

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, name)
        self.dimension, self.stride = self.network.config.hidden_size, self.network.config.patch_size

    def _features(self, rgb: UInt8) -> Float32:
        pixels = self.pixels(rgb)
        found = self.network(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]  # without the class token
        height, width = (length // self.stride for length in pixels.shape[2:])
        return pretrained.grid(found.transpose(1, 2).unflatten(2, (height, width)))


CARDS = tuple(
    pretrained.card(Teacher, f"dinov2-{size}", f"facebook/dinov2-{long}", "Apache-2.0", megabytes, "", dimension)
    for size, long, megabytes, dimension in (
        ("s", "small", 88, 384),
        ("b", "base", 346, 768),
        ("l", "large", 1218, 1024),
    )
)
