"""Architecture of a feature field, as it stands in a bundle."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from cmp_seg_ros.configuration import Strict


class VitConfig(Strict):
    """A vision transformer with the keys of DINO (`layer_scale` False) or DINOv2 (True); B/8 by default."""

    kind: Literal["vit"] = "vit"
    patch: PositiveInt = 8
    stride: PositiveInt = 8  # pixels of the image a patch; where it is not `patch`, the image is resized first
    width: PositiveInt = 768
    depth: PositiveInt = 12
    heads: PositiveInt = 12
    layer_scale: bool = False
    taps: tuple[int, int, int] = (3, 6, 9)  # blocks whose output the decoder sees, beside the last


class EfficientNetLiteConfig(Strict):
    """EfficientNet-Lite0 without its classifier."""

    kind: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    stride: Literal[32] = 32  # of the coarsest map


class DecoderConfig(Strict):
    """DPT (Ranftl et al., ICCV 2021).

    Args:
        width: channels of the fusion.
        stages: channels of the four levels, fine to coarse.
        light: levels have their strides already, and the map stays at the finest one; else they are made from patches
            and the map is 16 times as fine as these.
    """

    width: PositiveInt = 256
    stages: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (64, 64, 128, 256)
    light: bool = False


class ClusterConfig(Strict):
    """Classes by the published way: up-projection, distilled features, cluster centres, assignment."""

    kind: Literal["clusters"] = "clusters"
    hidden: PositiveInt = 128  # of the up-projection
    full: PositiveInt = 768  # width of the teacher's features
    distilled: PositiveInt = 64
    clusters: PositiveInt = 19


class LinearConfig(Strict):
    """Classes by one linear layer on the features of a point."""

    kind: Literal["linear"] = "linear"
    classes: PositiveInt


class FieldConfig(Strict):
    """The network. The defaults are those of the published DINO ViT-B/8 variant.

    Args:
        image: (height, width) of its input, pixels.
        depth: (near, far) of the rendering and of the positional code, metres.
        code_near: that of the code alone, if it differs: inverse depth is fine near and coarse far away, so that a code
            from 0.3 m on cannot tell surfaces at 5 m apart.
        heights: whether the code also has the height of a point above the floor, which a robot knows from where its
            camera sits; not in the published networks.
        frequencies, factor: of the positional code.
        hidden: width of the point MLP.
        features: of a point.
    """

    encoder: Annotated[VitConfig | EfficientNetLiteConfig, Field(discriminator="kind")] = VitConfig()
    decoder: DecoderConfig = DecoderConfig()
    head: Annotated[ClusterConfig | LinearConfig, Field(discriminator="kind")] = ClusterConfig()
    image: tuple[PositiveInt, PositiveInt] = (192, 640)
    depth: tuple[PositiveFloat, PositiveFloat] = (3.0, 80.0)
    code_near: PositiveFloat | None = None
    heights: bool = False
    frequencies: PositiveInt = 6
    factor: PositiveFloat = 1.5
    hidden: PositiveInt = 128
    features: PositiveInt = 64

    @model_validator(mode="after")
    def _consistent(self) -> "FieldConfig":
        stride = self.encoder.stride
        if any(size % stride for size in self.image):
            raise ValueError(f"image {self.image} is no multiple of {stride} pixels, the encoder's stride")
        if self.depth[0] >= self.depth[1]:
            raise ValueError(f"depth {self.depth}: give the nearest first")
        return self
