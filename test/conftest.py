"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

# Networks are tiny here, and threads of OpenMP that wait for a busy core make them ten times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data beside the checkout (or $CMP_SEG_SHARED_DATA); skips the test where it is absent."""
    folder = Path(os.environ.get("CMP_SEG_SHARED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("needs the shared data folder; set CMP_SEG_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained bundle over structural6 that answers in milliseconds, always with the same weights."""
    import torch

    from cmp_seg_ros.bundle import Bundle
    from cmp_seg_ros.label_space import LabelSpace
    from cmp_seg_ros.waffleiron import weights
    from cmp_seg_ros.waffleiron.config import NetworkConfig, PreprocessConfig
    from cmp_seg_ros.waffleiron.network import Segmenter

    torch.manual_seed(0)
    config = NetworkConfig(width=16, depth=3, outputs=6)
    bundle = Bundle.write(
        tmp_path_factory.mktemp("bundles") / "tiny",
        weights.serialise(Segmenter(config)),
        name="tiny",
        network=config,
        preprocess=PreprocessConfig(fov_min=(-20, -20, -3), fov_max=(20, 20, 5), grids=[(80, 80), (80, 16), (80, 16)]),
        label_space=LabelSpace.load("structural6"),
    )
    return bundle.path
