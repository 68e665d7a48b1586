"""The downsampler of training (FeatUp, Fu et al., ICLR 2024): rendered features of a patch become one of the teacher's.

Published checkpoints hold it; inference does not need it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Downsampler(nn.Module):
    """normalise(sum over the pixels of a patch of softmax(salience weight + bias) features)"""

    def __init__(self, features: int, patch: int) -> None:
        super().__init__()
        self.patch_weight = nn.Parameter(torch.ones(patch, patch))
        self.patch_bias = nn.Parameter(torch.zeros(patch, patch))
        self.conv = nn.Conv2d(features, 1, 1)

    def forward(self, patches: Tensor) -> Tensor:
        """(B, F, p, p) features of patches -> (B, F)"""
        logits = self.conv(patches) * self.patch_weight + self.patch_bias  # (B, 1, p, p)
        weights = logits.flatten(2).softmax(dim=2)
        return functional.normalize((patches.flatten(2) * weights).sum(dim=2), dim=1)
