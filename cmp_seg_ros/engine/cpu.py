"""The network on this machine's processor: bfloat16 products where it has them, else float32."""

import torch

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine.reference import ReferenceEngine
from cmp_seg_ros.scan import Float32
from cmp_seg_ros.waffleiron.preprocess import Voxels


class CpuEngine(ReferenceEngine):
    """The reference network under autocast."""

    name = "cpu"

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
        self.precision = "bf16" if self.bfloat16 else "fp32"

    def __call__(self, voxels: Voxels) -> Float32:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            return super().__call__(voxels)


def load(bundle: Bundle) -> CpuEngine:
    return CpuEngine(bundle)
