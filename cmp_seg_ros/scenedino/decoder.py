"""DPT decoder (Ranftl et al., ICCV 2021) with the published parameter names: four maps in, one map of features out."""

from torch import Tensor, nn
from torch.nn import functional

from cmp_seg_ros.scenedino.config import DecoderConfig


class Decoder(nn.Module):
    """levels <- convs(reassemble(maps)); x <- fuse(x, level) from coarse to fine; output_head(project(x))

    There is no activation from the last residual unit to the first layer of the point MLP.
    """

    def __init__(self, config: DecoderConfig, channels: tuple[int, ...]) -> None:
        super().__init__()
        width = config.width
        self.reassemble_blocks = Reassemble(config, channels)
        self.convs = nn.ModuleList(nn.Conv2d(c, width, 3, padding=1, bias=False) for c in config.stages)
        self.fusion_blocks = nn.ModuleList(
            Fusion(width, first=i == 0, upsample=not (config.light and i == 3)) for i in range(4)
        )
        self.project = nn.Conv2d(width, width, 3, padding=1)
        self.output_head = nn.Identity() if config.light else OutputHead(width)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Four maps, fine to coarse -> (B, width, h, w)."""
        levels = [conv(x) for conv, x in zip(self.convs, self.reassemble_blocks(maps), strict=True)]
        x = self.fusion_blocks[0](levels[3])
        for block, level in zip(self.fusion_blocks[1:], levels[2::-1], strict=True):
            x = block(x, level)
        return self.output_head(self.project(x))


class Reassemble(nn.Module):
    """Project each map; of patches, make the first four times as fine, the second twice, the last half as fine."""

    def __init__(self, config: DecoderConfig, channels: tuple[int, ...]) -> None:
        super().__init__()
        a, b, _, d = config.stages
        self.projects = nn.ModuleList(nn.Conv2d(c, s, 1) for c, s in zip(channels, config.stages, strict=True))
        if config.light:
            self.resize_layers = nn.ModuleList(nn.Identity() for _ in config.stages)
            return
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(a, a, 4, stride=4),
                nn.ConvTranspose2d(b, b, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(d, d, 3, stride=2, padding=1),
            ]
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        layers = zip(self.resize_layers, self.projects, maps, strict=True)
        return [resize(project(x)) for resize, project, x in layers]


class Fusion(nn.Module):
    """x <- project(up(res_conv_unit2(x + res_conv_unit1(skip))))"""

    def __init__(self, width: int, first: bool, upsample: bool) -> None:
        super().__init__()
        self.project = nn.Conv2d(width, width, 1)
        if not first:
            self.res_conv_unit1 = ResidualUnit(width)
        self.res_conv_unit2 = ResidualUnit(width)
        self.upsample = upsample

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if skip is not None:
            if skip.shape != x.shape:
                skip = functional.interpolate(skip, x.shape[2:], mode="bilinear", align_corners=False)
            x = x + self.res_conv_unit1(skip)
        x = self.res_conv_unit2(x)
        if self.upsample:
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        return self.project(x)


class ResidualUnit(nn.Module):
    """x <- x + conv2(relu(conv1(relu(x))))"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(functional.relu(self.conv1(functional.relu(x))))


class OutputHead(nn.Module):
    """A convolution, a transposed one that doubles the size, and a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head_modules = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ConvTranspose2d(width, width, 2, stride=2),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head_modules(x)
