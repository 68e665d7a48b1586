"""Label spaces: the shipped ones, mappings between them, and files that make no sense."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cmp_seg_ros import resources
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED

SPACE: dict[str, Any] = {
    "name": "colours",
    "classes": [
        {"name": "warm", "id": 3, "color": [255, 0, 0]},
        {"name": "cold", "id": 200, "color": [0, 0, 255]},
    ],
    "mappings": {"structural4": {"wall": "cold", "floor": "warm", "ceiling": "cold", "non-structural": "ignore"}},
}


def test_shipped_spaces_are_named_by_their_file() -> None:
    names = resources.names("config/label_spaces", ".yaml")
    assert {"structural6", "structural4", "indoor"} <= set(names)
    for name in names:
        assert LabelSpace.load(name).name == name


def test_classes_of_the_shipped_bundles() -> None:
    space = LabelSpace.load("structural6")
    assert space.names == ["wall", "floor", "ceiling", "flush", "object", "person"]
    assert space.ids.tolist() == [0, 1, 2, 3, 4, 5]


def test_structural4_reads_flush_strictly_and_as_primary() -> None:
    six, four = LabelSpace.load("structural6"), LabelSpace.load("structural4")
    assert four.names == ["wall", "floor", "ceiling", "non-structural"]
    assert four.id_map(six)[:6].tolist() == [0, 1, 2, 3, 3, 3]
    assert four.id_map(six, "primary")[:6].tolist() == [0, 1, 2, UNLABELLED, 3, 3]
    assert (four.id_map(six)[6:] == UNLABELLED).all()
    merged = np.array([[0.3, 0.1, 0.0, 0.2, 0.2, 0.2]], np.float32) @ four.merge_matrix(six)
    np.testing.assert_allclose(merged, [[0.3, 0.1, 0.0, 0.6]], atol=1e-6)  # wall alone leads, but three together do
    assert four.merge_matrix(six, "primary")[3].tolist() == [0, 0, 0, 0]


def test_ids_need_not_be_positions(tmp_path: Path) -> None:
    path = tmp_path / "colours.yaml"
    path.write_text(yaml.safe_dump(SPACE))
    space, four = LabelSpace.load(path), LabelSpace.load("structural4")
    assert space.id_map(four)[:4].tolist() == [200, 3, 200, UNLABELLED]
    assert space.palette[200].tolist() == [0, 0, 255] and space.palette[0].tolist() == [0, 0, 0]
    assert space.index_of_id[[3, 200, 0]].tolist() == [0, 1, UNLABELLED]


def test_a_space_maps_from_itself() -> None:
    space = LabelSpace.load("indoor")
    np.testing.assert_array_equal(space.merge_matrix(space), np.eye(20))


def test_yaml_gives_the_same_space_back(tmp_path: Path) -> None:
    space = LabelSpace.load("structural4")
    (tmp_path / "s.yaml").write_text(space.to_yaml())
    assert LabelSpace.load(tmp_path / "s.yaml") == space


def test_numbered_classes_up_to_the_last_id() -> None:
    space = LabelSpace.numbered(255)
    assert space.names[0] == "0" and space.names[-1] == "254"
    assert len(set(map(tuple, space.palette.tolist()))) > 200
    with pytest.raises(ValueError):
        LabelSpace.numbered(256)


def test_unknown_names_and_mappings_say_what_there_is() -> None:
    with pytest.raises(UserError, match=r"no label space 'structural5': neither a file nor one of .*structural4"):
        LabelSpace.load("structural5")
    with pytest.raises(UserError, match="'indoor' has no mapping from 'structural6'"):
        LabelSpace.load("indoor").id_map(LabelSpace.load("structural6"))
    with pytest.raises(UserError, match=r"no mapping from 'structural6:soft' \(it has: structural6, "):
        LabelSpace.load("structural4").merge_matrix(LabelSpace.load("structural6"), "soft")


def test_a_mapping_must_speak_of_every_class() -> None:
    space = LabelSpace.model_validate({**SPACE, "mappings": {"structural4": {"wall": "cold"}}})
    with pytest.raises(UserError, match="lacks floor, ceiling, non-structural; map or ignore them"):
        space.id_map(LabelSpace.load("structural4"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": []}, "classes: .*at least 1"),
        ({"classes": [SPACE["classes"][0]] * 2}, "two classes share the same name"),
        ({"classes": [SPACE["classes"][0], {**SPACE["classes"][1], "id": 3}]}, "two classes share the same id"),
        ({"classes": [{"name": "a", "id": 255, "color": [0, 0, 0]}]}, r"classes\.0\.id: .*less than 255"),
        ({"mappings": {"x": {"a": "lukewarm"}}}, r"mapping from x names unknown classes \['lukewarm'\]"),
        ({"colour": 1}, "colour: Extra inputs"),
    ],
)
def test_a_space_that_makes_no_sense(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(SPACE | change))
    with pytest.raises(UserError, match=message) as error:
        LabelSpace.load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"a: [", b"\xff\xfe\x00", b"- 1"])
def test_a_file_that_is_no_space(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"s\.yaml is not"):
        LabelSpace.load(path)
    with pytest.raises(UserError, match=r"no label space '.*absent\.yaml': neither a file"):
        LabelSpace.load(tmp_path / "absent.yaml")


@pytest.mark.parametrize("source", ["mosaic32", "ade20k", "coco"])
def test_every_class_of_a_teacher_has_a_place_and_pseudo_differs_only_in_what_it_ignores(source: str) -> None:
    teacher = LabelSpace.load(source)
    for name in ("structural6", "structural4"):
        space = LabelSpace.load(name)
        hand, pseudo = space.merge_matrix(teacher), space.merge_matrix(teacher, "pseudo")
        assert (hand.sum(axis=0) > 0).all() and set(hand.sum(axis=1).tolist()) == {0.0, 1.0}
        ignored = pseudo.sum(axis=1) == 0
        assert (hand[~ignored] == pseudo[~ignored]).all() and hand.sum() > pseudo.sum()
    assert [len(LabelSpace.load(s).classes) for s in ("ade20k", "coco")] == [150, 133]
    indoor, structural6 = LabelSpace.load("indoor"), LabelSpace.load("structural6")
    through = np.append(structural6.id_map(indoor)[:-1], UNLABELLED)[indoor.id_map(teacher)]
    np.testing.assert_array_equal(through, structural6.id_map(teacher))
    primary = LabelSpace.load("structural4").id_map(teacher, "primary")
    door = next(c.id for c in teacher.classes if c.name == "door")
    assert primary[door] == UNLABELLED and LabelSpace.load("structural4").id_map(teacher)[door] == 3
