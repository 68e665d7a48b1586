"""Plain PyTorch in float32: the truth that every other engine is checked against."""

import torch

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.scan import Float32
from cmp_seg_ros.waffleiron import weights
from cmp_seg_ros.waffleiron.batch import collate
from cmp_seg_ros.waffleiron.preprocess import Voxels


class ReferenceEngine:
    """The network as it was trained."""

    name = "reference"
    precision = "fp32"

    def __init__(self, bundle: Bundle) -> None:
        self.network = weights.load(bundle.weights_path, bundle.description.network)
        self.grids = bundle.description.preprocess.grids

    @torch.inference_mode()
    def __call__(self, voxels: Voxels) -> Float32:
        logits: Float32 = self.network(collate([voxels], self.grids)).float().numpy()
        return logits


def load(bundle: Bundle, precision: str = "") -> ReferenceEngine:
    if precision not in ("", "fp32"):
        raise UserError(f"engine 'reference' is fp32, not {precision}; 'cpu-{precision}' may be what you want")
    return ReferenceEngine(bundle)
