"""Bundles on disk: found by path and by name, written whole, and refused where a file is missing or broken."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import change

from cmp_seg_ros import Segmenter, resources
from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine.loading import load_engine
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))


def edit(bundle: Path, **changes: Any) -> None:
    """`change` fields of bundle.yaml."""
    data = yaml.safe_load((bundle / "bundle.yaml").read_text())
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(change(data, changes)))


def test_what_is_written_is_read(bundle: Path) -> None:
    found = Bundle(bundle)
    assert found.points.network.width == 16 and found.points.network.depth == 3
    assert found.points.preprocess.grids == [(80, 80), (80, 16), (80, 16)]
    assert found.points.intensity.mode == "per_sensor"
    assert found.description.kind == "segmentation"
    assert found.description.label_space == LabelSpace.load("structural6")


def test_a_bundle_of_format_1_is_the_same(bundle: Path) -> None:
    """Which has the section's fields beside the header's; so have the shipped bundles."""
    data = yaml.safe_load((bundle / "bundle.yaml").read_text())
    assert data["format"] == 2
    flat = data | data.pop("segmentation") | {"format": 1}
    del flat["kind"]
    before = Bundle(bundle)
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(flat))
    assert Bundle(bundle).description == before.description and Bundle(bundle).hash == before.hash


def test_bundles_of_other_kinds(bundle: Path, tmp_path: Path) -> None:
    """Each has its section, and is refused where another is wanted."""
    points = Bundle(bundle).points
    features = Bundle.write(tmp_path / "f", b"weights", name="f", kind="features", features=points)
    assert features.points == points
    with pytest.raises(UserError, match="bundle 'f' is of kind features and has no classes"):
        Segmenter(features)
    field = {"network": {"image": (192, 640), "depth": (0.3, 12.0)}, "threshold": 0.2}
    space = LabelSpace.load("structural6")
    occupancy = Bundle.write(tmp_path / "o", b"weights", name="o", kind="occupancy", occupancy=field, label_space=space)
    assert occupancy.description.occupancy is not None and occupancy.description.occupancy.network.image == (192, 640)
    with pytest.raises(UserError, match="is of kind occupancy, which does not label scans"):
        Segmenter(occupancy)


def test_a_bundle_is_found_by_path_then_by_name(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Bundle.find(bundle).path == bundle
    (bundle.parent / "models").mkdir()
    shutil.copytree(bundle, bundle.parent / "models" / "installed")
    monkeypatch.setattr(resources, "share_folders", lambda: [bundle.parent])
    assert Bundle.find("installed").path == bundle.parent / "models" / "installed"
    with pytest.raises(UserError, match=r"no bundle 'other': neither a folder nor one of models/ \(installed\)"):
        Bundle.find("other")


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"segmentation__preprocess__voxel_size": 0.15}, False),
        ({"segmentation__intensity__mode": "raw"}, False),
        ({"label_space__classes__0__name": "other"}, False),
        ({"label_space__classes__0__color": [1, 2, 3]}, True),
        ({"label_space__description": "other", "name": "other", "training": {"a": 9}, "measured": {"b": 1}}, True),
    ],
)
def test_the_hash_is_of_what_decides_the_numbers(bundle: Path, changes: dict[str, Any], same: bool) -> None:
    data = yaml.safe_load((bundle / "bundle.yaml").read_text())
    data["label_space"] |= {"mappings": {}, "name": "mine"}  # mappings name classes; no colours from elsewhere
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(data))
    before = Bundle(bundle).hash
    edit(bundle, **changes)
    assert (Bundle(bundle).hash == before) == same and len(before) == 12


def test_colours_are_those_of_the_one_file(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where config/label_spaces/ knows the space; a bundle of another space brings its own."""
    folder = tmp_path / "config" / "label_spaces"
    folder.mkdir(parents=True)
    space = resources.resource("config/label_spaces/structural6.yaml").read_text()
    (folder / "structural6.yaml").write_text(space.replace("[120, 150, 200]", "[9, 8, 7]"))
    monkeypatch.setattr(resources, "share_folders", lambda: [tmp_path])
    assert Bundle(bundle).description.label_space.palette[0].tolist() == [9, 8, 7]
    edit(bundle, label_space__name="mine")
    assert Bundle(bundle).description.label_space.palette[0].tolist() == [120, 150, 200]


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
        ({"segmentation__network": None}, "network: Field required"),
        ({"segmentation": None}, "kind segmentation needs one section, segmentation; there is none"),
        ({"label_space": None}, "kind segmentation needs a label_space"),
        ({"segmentation__network__norm": "groupnorm"}, r"network\.norm"),
        ({"segmentation__network__outputs": 5}, "network.outputs is 5, classes are 6"),
        ({"segmentation__network__inputs": 4}, "network.inputs is 4, the features have 5"),
        ({"segmentation__network__planes": 2}, "network.planes is 2, preprocess has 3"),
        ({"segmentation__preprocess__grids": [[80, 80]]}, "3 planes but 1 grids"),
        ({"segmentation__intensity__std": 0}, r"intensity\.std"),
        ({"format": 3}, "format: Input should be 2"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
    ],
)
def test_a_description_that_makes_no_sense(bundle: Path, changes: dict[str, Any], message: str) -> None:
    edit(bundle, **changes)
    with pytest.raises(UserError, match=message) as error:
        Bundle(bundle)
    assert str(bundle / "bundle.yaml") in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"a: [1,", b"\xff\xfe\x00", b"!!python/object/apply:os.getcwd []"])
def test_a_description_that_is_none(bundle: Path, content: bytes) -> None:
    (bundle / "bundle.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"bundle\.yaml is not (valid|YAML)") as error:
        Bundle(bundle)
    assert "\n" not in str(error.value)


def test_weights_that_are_no_safetensors_are_told(bundle: Path) -> None:
    (bundle / "weights.safetensors").write_bytes(b"none")
    edit(bundle, weights_sha256=hashlib.sha256(b"none").hexdigest())
    with pytest.raises(UserError, match=r"weights\.safetensors cannot be read"):
        load_engine(Bundle(bundle), "reference")


def test_nothing_is_written_for_a_description_that_makes_no_sense(bundle: Path) -> None:
    description = Bundle(bundle).description.model_dump(by_alias=True)
    del description["weights_sha256"]
    description["segmentation"]["network"]["outputs"] = 9
    with pytest.raises(ValueError, match="classes are 6"):
        Bundle.write(bundle.parent / "new", b"weights", **description)
    assert not (bundle.parent / "new").exists()
