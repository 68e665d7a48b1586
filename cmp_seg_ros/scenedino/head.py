"""From the features of a point to its class: the published head of clusters, and a linear one."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cmp_seg_ros.scenedino.config import ClusterConfig, LinearConfig


class UpProjection(nn.Module):
    """normalise(linear_out(relu(linear_in(x)))): features of a point -> features of the teacher"""

    def __init__(self, features: int, hidden: int, full: int) -> None:
        super().__init__()
        self.linear_in = nn.Linear(features, hidden)
        self.linear_out = nn.Linear(hidden, full)

    def forward(self, features: Tensor) -> Tensor:
        return functional.normalize(self.linear_out(functional.relu(self.linear_in(features))), dim=-1)


class ClusterHead(nn.Module):
    """STEGO's head (Hamilton et al., ICLR 2022) with cluster centres; the probes beside it are for evaluation.

    The convolutions of the published head are 1x1, hence linear layers on points.
    """

    def __init__(self, config: ClusterConfig) -> None:
        super().__init__()
        full, distilled, clusters = config.full, config.distilled, config.clusters
        self.direct_cluster_head = Clusters(full, clusters)
        self.stego_head = StegoHead(full, distilled)
        self.stego_cluster_head = Clusters(distilled, clusters)
        self.direct_linear_head = Probe(full, clusters)
        self.stego_linear_head = Probe(distilled, clusters)

    def forward(self, full: Tensor) -> Tensor:
        """(N, full) unit features -> (N, clusters) cosines with the centres."""
        return self.stego_cluster_head(self.stego_head(full))

    @property
    def assignment(self) -> Tensor:
        """(clusters,) class of each cluster."""
        return self.stego_cluster_head.pseudo_assignment


class StegoHead(nn.Module):
    """normalise(linear_path(x) + nonlinear_path(x))"""

    def __init__(self, full: int, distilled: int) -> None:
        super().__init__()
        self.linear_path = nn.Sequential(nn.Linear(full, distilled))
        self.nonlinear_path = nn.Sequential(nn.Linear(full, full), nn.ReLU(), nn.Linear(full, distilled))

    def forward(self, full: Tensor) -> Tensor:
        return functional.normalize(self.linear_path(full) + self.nonlinear_path(full), dim=-1)


class Clusters(nn.Module):
    """Cosines with the cluster centres."""

    pseudo_assignment: Tensor

    def __init__(self, width: int, clusters: int) -> None:
        super().__init__()
        self.cluster_centers = nn.Parameter(torch.randn(clusters, width))
        self.register_buffer("pseudo_assignment", torch.arange(clusters))

    def forward(self, features: Tensor) -> Tensor:
        return functional.normalize(features, dim=-1) @ functional.normalize(self.cluster_centers, dim=-1).T


class Probe(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features)


class LinearHead(nn.Linear):
    """Logits of the classes."""

    assignment: Tensor

    def __init__(self, features: int, config: LinearConfig) -> None:
        super().__init__(features, config.classes)
        self.register_buffer("assignment", torch.arange(config.classes), persistent=False)


class Downsampler(nn.Module):
    """The downsampler of training (FeatUp, Fu et al., ICLR 2024), which published checkpoints hold.

    Rendered features of a patch become one of the teacher's; inference does not need it.

    normalise(sum over the pixels of a patch of softmax(salience weight + bias) features)
    """

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
