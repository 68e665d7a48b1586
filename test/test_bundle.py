"""Bundles on disk: found by path and by name, written whole, and refused where a file is missing or broken."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from cmp_seg_ros import resources
from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine.base import load_engine
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))


def edit(bundle: Path, **changes: Any) -> None:
    """Change fields of bundle.yaml; `a__b` is b in a, None removes."""
    data = yaml.safe_load((bundle / "bundle.yaml").read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        field = data
        for parent in parents:
            field = field[parent]
        if value is None:
            del field[last]
        else:
            field[last] = value
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(data))


def test_what_is_written_is_read(bundle: Path) -> None:
    description = Bundle(bundle).description
    assert description.network.width == 16 and description.network.depth == 3
    assert description.preprocess.grids == [(80, 80), (80, 16), (80, 16)]
    assert description.label_space == LabelSpace.load("structural6")
    assert description.intensity.mode == "per_sensor"


def test_a_bundle_is_found_by_path_then_by_name(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Bundle.find(bundle).path == bundle
    (bundle.parent / "models").mkdir()
    shutil.copytree(bundle, bundle.parent / "models" / "installed")
    monkeypatch.setattr(resources, "share_folders", lambda: [bundle.parent])
    assert Bundle.find("installed").path == bundle.parent / "models" / "installed"
    with pytest.raises(UserError, match=r"no bundle 'other': neither a folder nor one of models/ \(installed\)"):
        Bundle.find("other")


def test_the_hash_tells_every_change(bundle: Path) -> None:
    before = Bundle(bundle).hash
    assert before == Bundle(bundle).hash and len(before) == 12
    edit(bundle, preprocess__voxel_size=0.15)
    assert Bundle(bundle).hash != before


@pytest.mark.parametrize("name", ["bundle.yaml", "weights.safetensors"])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(UserError, match=f"bundle {bundle} has no {name}; a bundle is a folder with"):
        Bundle(bundle)


@pytest.mark.parametrize("spoil", [lambda b: b[:-1], lambda b: b"", lambda b: b[:100] + b"!" + b[101:]])
def test_damaged_weights_are_noticed(bundle: Path, spoil: Any) -> None:
    weights = bundle / "weights.safetensors"
    weights.write_bytes(spoil(weights.read_bytes()))
    with pytest.raises(UserError, match=r"weights\.safetensors is damaged.*copy it again"):
        Bundle(bundle)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": None}, "network: Field required"),
        ({"network__width": -1}, r"network\.width"),
        ({"network__norm": "groupnorm"}, r"network\.norm"),
        ({"network__outputs": 5}, "network.outputs is 5, classes are 6"),
        ({"network__inputs": 4}, "network.inputs is 4, the features have 5"),
        ({"network__planes": 2}, "network.planes is 2, preprocess has 3"),
        ({"preprocess__grids": [[80, 80]]}, "3 planes but 1 grids"),
        ({"intensity__mode": "loud"}, r"intensity\.mode"),
        ({"intensity__std": 0}, r"intensity\.std"),
        ({"format": 2}, "format: Input should be 1"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
    ],
)
def test_a_description_that_makes_no_sense(bundle: Path, changes: dict[str, Any], message: str) -> None:
    edit(bundle, **changes)
    with pytest.raises(UserError, match=message) as error:
        Bundle(bundle)
    assert str(bundle / "bundle.yaml") in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"a: [1,", b"\xff\xfe\x00", b"- 1", b"!!python/object/apply:os.getcwd []"])
def test_a_description_that_is_none(bundle: Path, content: bytes) -> None:
    (bundle / "bundle.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"bundle\.yaml (is not valid|cannot be read)") as error:
        Bundle(bundle)
    assert "\n" not in str(error.value)


def test_weights_of_another_network_are_told_by_their_keys(bundle: Path) -> None:
    edit(bundle, network__depth=4)
    with pytest.raises(UserError, match=r"do not fit the network: missing: waffleiron\.channel_mix\.3\.mlp\.0\.bias, "):
        load_engine(Bundle(bundle), "reference")


def test_weights_that_are_no_safetensors_are_told(bundle: Path) -> None:
    (bundle / "weights.safetensors").write_bytes(b"none")
    edit(bundle, weights_sha256=hashlib.sha256(b"none").hexdigest())
    with pytest.raises(UserError, match=r"weights\.safetensors cannot be read"):
        load_engine(Bundle(bundle), "reference")


def test_nothing_is_written_for_a_description_that_makes_no_sense(bundle: Path) -> None:
    description = Bundle(bundle).description.model_dump()
    del description["weights_sha256"]
    description["network"]["outputs"] = 9
    with pytest.raises(ValueError, match="classes are 6"):
        Bundle.write(bundle.parent / "new", b"weights", **description)
    assert not (bundle.parent / "new").exists()


def test_an_unknown_engine_is_told(bundle: Path) -> None:
    with pytest.raises(UserError, match="no engine 'steam'; known: auto, reference"):
        load_engine(Bundle(bundle), "steam")
