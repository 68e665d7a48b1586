"""Encoders: one file a kind, with a class `Encoder(config, image)`.

An encoder maps (B, 3, H, W) images with values in [-1, 1] to four feature maps, fine to coarse; `channels` are theirs.
"""

from importlib import import_module

from torch import Tensor, nn

from cmp_seg_ros.scenedino.config import EfficientNetLiteConfig, VitConfig

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class Encoder(nn.Module):
    """What encoders have in common."""

    channels: tuple[int, int, int, int]

    def normalised(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> as the pre-trained networks expect it."""
        mean, std = (image.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        return (image * 0.5 + 0.5 - mean) / std

    def folded(self) -> "Encoder":
        """An encoder with the same results and less work, for inference; weights may be shared."""
        return self


def make_encoder(config: VitConfig | EfficientNetLiteConfig, image: tuple[int, int]) -> Encoder:
    """The encoder of a configuration, with random weights, for images of (height, width)."""
    encoder: Encoder = import_module(f"{__name__}.{config.kind}").Encoder(config, image)
    return encoder
