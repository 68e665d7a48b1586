"""Shifts the decision between classes: an offset of each logit (logit adjustment; Menon et al., ICLR 2021)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.errors import UserError

BIAS = "classif.bias"  # of the last layer


def shift(bundle: Bundle, offsets: Mapping[str, float], out: Path) -> Bundle:
    """Write the bundle with offsets of the log probabilities of some classes to `out`, which may be its own folder.

    A class that the network takes others for, such as person, needs less than 0; choose them on scans of no suite.

    Raises:
        UserError: a class that the bundle does not have, or a head with other layers than one.
    """
    from safetensors.numpy import load_file, save

    space, weights = bundle.description.label_space, load_file(bundle.weights_path)
    unknown = sorted(set(offsets) - set(space.names))
    if unknown:
        raise UserError(
            f"bundle {bundle.path} has no class {', '.join(unknown)}; its classes: {', '.join(space.names)}"
        )
    if BIAS not in weights:
        raise UserError(f"bundle {bundle.path} has a head of several layers; offsets need a linear one")
    added = np.array([offsets.get(name, 0.0) for name in space.names]) * bundle.description.temperature
    weights[BIAS] = (weights[BIAS].astype(np.float64) + added).astype(weights[BIAS].dtype)
    training = bundle.description.training | {"offsets": dict(offsets)}
    about = bundle.description.model_dump(exclude={"weights_sha256", "training"})
    return Bundle.write(out, save(weights), training=training, **about)
