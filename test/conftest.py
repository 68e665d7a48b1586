"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from engines import MakeBundle
    from ros_harness import Robot

    from cmp_seg_ros.bundle import Bundle
    from cmp_seg_ros.waffleiron.config import PreprocessConfig

Run = Callable[..., SimpleNamespace]

# The same cases at every run, on slow machines too; for other cases: pytest --hypothesis-profile random
settings.register_profile("random", deadline=None)
settings.register_profile("repeatable", settings.get_profile("random"), derandomize=True)
settings.load_profile("repeatable")

# Tests of Ctrl-C need it where a shell started them in the background, which ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Networks are tiny here, and threads of OpenMP that wait for a busy core make them ten times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def change(data: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Change fields of nested dicts and lists in place; `a__0__b` is b in the first of a, None removes."""
    for path, value in changes.items():
        *parents, last = path.split("__")
        field: Any = data
        for parent in parents:
            field = field[int(parent) if parent.isdigit() else parent]
        field[last] = value
        if value is None:
            del field[last]
    return data


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data beside the checkout (or $CMP_SEG_SHARED_DATA); skips the test where it is absent."""
    folder = Path(os.environ.get("CMP_SEG_SHARED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("needs the shared data folder; set CMP_SEG_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def _engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(autouse=True)
def _own_cache(_engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built engines are not kept in the user's cache."""
    from cmp_seg_ros.engine import cache

    monkeypatch.setattr(cache, "folder", lambda: _engines)


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


@pytest.fixture(scope="session")
def calibrated(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle, calibrated on box rooms."""
    from rooms import box_rooms

    from cmp_seg_ros.bundle import Bundle
    from cmp_seg_ros.training.calibration import calibrate

    folder = tmp_path_factory.mktemp("calibrated") / "bundle"
    return calibrate(Bundle(tiny_bundle), box_rooms(range(30)), folder, "reference")


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """Makes bundles with statistics, scales and weights of the size that training gives them."""
    import torch
    from engines import PREPROCESS
    from torch import nn

    from cmp_seg_ros.bundle import Bundle
    from cmp_seg_ros.label_space import LabelSpace
    from cmp_seg_ros.waffleiron import weights
    from cmp_seg_ros.waffleiron.config import NetworkConfig
    from cmp_seg_ros.waffleiron.network import LayerScale, Segmenter

    def make(preprocess: PreprocessConfig = PREPROCESS, **fields: Any) -> Bundle:
        config = NetworkConfig(**{"width": 24, "depth": 4, "outputs": 6, "inputs": preprocess.inputs} | fields)
        torch.manual_seed(1)
        network = Segmenter(config)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.3, 3)
            if isinstance(module, nn.BatchNorm1d | nn.LayerNorm):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
            if isinstance(module, LayerScale):
                nn.init.normal_(module.weight, 0, 0.3)
        last = [module for module in network.classif.modules() if isinstance(module, nn.Linear)][-1]
        nn.init.normal_(last.weight, 0, 4 / last.in_features**0.5)  # answers as decided as those of a trained head
        return Bundle.write(
            tmp_path_factory.mktemp("bundle"),
            weights.serialise(network),
            name="test",
            network=config,
            preprocess=preprocess,
            label_space=LabelSpace.model_validate(
                {
                    "name": "test",
                    "classes": [{"name": f"c{i}", "id": i, "color": [i, 0, 0]} for i in range(config.outputs)],
                }
            ),
        )

    return make


@pytest.fixture
def robot(tmp_path: Path) -> Iterator[Robot]:
    """A robot without nodes of its own as yet."""
    from ros_harness import Robot

    with Robot(tmp_path / "logs") as robot:
        yield robot


@pytest.fixture
def start_robot(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes a robot of some kind in the folder of the test, from what its class takes."""
    with ExitStack() as stack:
        yield lambda kind, *arguments, **options: stack.enter_context(kind(tmp_path, *arguments, **options))


@pytest.fixture(scope="session")
def benchmark() -> Callable[[str], ModuleType]:
    """The script of a name in benchmarks/, as a module."""

    def load(name: str) -> ModuleType:
        file = Path(__file__).resolve().parents[1] / "benchmarks" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `cmp-seg ARGS` in this process: code, out and err."""
    from cmp_seg_ros.cli import main

    def call(*args: Any) -> SimpleNamespace:
        monkeypatch.setattr("sys.argv", ["cmp-seg", *map(str, args)])
        signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        capsys.readouterr()
        code: Any = 0
        try:
            main.main()
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            for number, handler in signals.items():
                signal.signal(number, handler)
        said = capsys.readouterr()
        return SimpleNamespace(code=code, out=said.out, err=said.err)

    return call
