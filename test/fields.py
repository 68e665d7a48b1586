"""A small occupancy bundle whose answers are known."""

from pathlib import Path

import torch

from cmp_seg_ros.bundle import Bundle, ImageNetwork
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.network_weights import serialise
from cmp_seg_ros.scenedino.config import DecoderConfig, EfficientNetLiteConfig, FieldConfig, LinearConfig
from cmp_seg_ros.scenedino.field import FeatureField

SMALL = FieldConfig(
    encoder=EfficientNetLiteConfig(),
    decoder=DecoderConfig(width=16, stages=(8, 8, 8, 8), light=True),
    head=LinearConfig(classes=14),
    image=(64, 96),
    depth=(0.3, 12),
    features=8,
)


def occupancy_bundle(path: Path) -> Bundle:
    """A network that finds every voxel beyond 2 m occupied: density grows with the coded depth alone."""
    torch.manual_seed(0)
    field = FeatureField(SMALL).eval()
    with torch.no_grad():
        field.mlp.lin_in.weight.zero_()
        field.mlp.lin_in.bias.zero_()
        field.mlp.lin_in.weight[0, SMALL.decoder.width + 2] = -1  # the coded inverse depth, 1 near and -1 far
        inverse = 2 * (1 / 2 - 1 / 12) / (1 / 0.3 - 1 / 12) - 1
        field.mlp.lin_in.bias[0] = inverse
        field.mlp.lin_out.weight.zero_()
        field.mlp.lin_out.bias[:] = -20.0
        field.mlp.lin_out.weight[0, 0] = 1e5
        field.head.get_parameter("weight").zero_()
        field.head.get_parameter("bias").copy_(torch.arange(14) == 7)
    section = ImageNetwork(network=SMALL, focal=70.0, threshold=7.0)
    return Bundle.write(
        path,
        serialise(field, half=False),
        name="o",
        kind="occupancy",
        occupancy=section,
        label_space=LabelSpace.load("image14"),
    )
