"""The mean of the weights of bundles that began with the same one (Wortsman et al., Model soups, ICML 2022)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.errors import UserError


def average(bundles: Sequence[Bundle], out: Path) -> Bundle:
    """Write the last bundle's description with the mean of all weights, batch norms' statistics included, to `out`.

    Raises:
        UserError: the bundles are of different networks.
    """
    from safetensors.numpy import load_file, save

    if any(bundle.points.network != bundles[-1].points.network for bundle in bundles):
        raise UserError("bundles of different networks have no mean; give some of one training, or of one start")
    weights = [load_file(bundle.weights_path) for bundle in bundles]
    mean = {
        name: np.mean([each[name].astype(np.float64) for each in weights], axis=0).astype(value.dtype)
        for name, value in weights[-1].items()
    }
    return Bundle.write(out, save(mean), **bundles[-1].description.model_dump(exclude={"weights_sha256"}))
