"""The mean of the weights of bundles."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.training.average import average


def test_the_mean_of_two_bundles(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    one = make_bundle()
    tripled = {name: (3 * value).astype(value.dtype) for name, value in load_file(one.weights_path).items()}
    description = one.description.model_dump(exclude={"weights_sha256"})
    other = Bundle.write(tmp_path / "other", save(tripled), **description)
    mean = average([one, other], tmp_path / "mean")
    before, found = load_file(one.weights_path), load_file(mean.weights_path)
    for name, value in before.items():
        np.testing.assert_allclose(found[name], 2.0 * value, rtol=2e-3, atol=1e-3)


def test_bundles_of_different_networks_have_none(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="different networks"):
        average([make_bundle(width=16), make_bundle(width=32)], tmp_path / "mean")
