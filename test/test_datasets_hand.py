"""Hand labels as a source of frames: files of CloudCompare and SemanticKITTI, clouds in a bag, and what is wrong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bags import columns, scans, write_bag

from cmp_seg_ros.datasets import hand, open_input, pcd, ply
from cmp_seg_ros.datasets.frame import HAND, Frame
from cmp_seg_ros.datasets.hand import with_hand_labels
from cmp_seg_ros.datasets.labelled_bag import LabelledBagWriter
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Labels, Scan

SIX = LabelSpace.load("structural6")
POINTS = 400


def ids(number: int = 0) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 6, POINTS).astype(np.uint8)


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return write_bag(tmp_path / "drive", "mcap", {"/points": scans(3)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """For label files, with what their ids mean."""
    (tmp_path / "hand").mkdir()
    (tmp_path / "hand" / hand.SPACE_FILE).write_text(SIX.to_yaml())
    return tmp_path / "hand"


def cloud(label: np.ndarray) -> dict[str, np.ndarray]:
    """Scan 0 with labels as CloudCompare has them: fractions, and one that nobody gave."""
    values = label.astype(np.float32)
    values[7] = np.nan
    return {**{axis: columns(0)[axis] for axis in "xyz"}, "scalar_label": values}


def as_ply(path: Path, label: np.ndarray) -> None:
    ply.write(path.with_suffix(".ply"), cloud(label), SIX)


def as_pcd(path: Path, label: np.ndarray) -> None:
    pcd.write(path.with_suffix(".pcd"), cloud(label))


def as_las(path: Path, label: np.ndarray) -> None:
    laspy = pytest.importorskip("laspy")
    header = laspy.LasHeader(point_format=3, version="1.4")
    header.scales = np.full(3, 1e-3)
    header.add_extra_dim(laspy.ExtraBytesParams("label", np.float32))
    file = laspy.LasData(header)
    values = cloud(label)
    file.x, file.y, file.z, file["label"] = values["x"], values["y"], values["z"], values["scalar_label"]
    file.write(path.with_suffix(".las"))


def as_text(path: Path, label: np.ndarray) -> None:
    rows = np.stack(list(cloud(label).values()), axis=1)
    np.savetxt(path.with_suffix(".asc"), rows, "%.6f", header="X Y Z Label", comments="//")


def as_bare_text(path: Path, label: np.ndarray) -> None:
    """Without names, with the number of points, and commas."""
    rows = np.stack([*columns(0).values(), cloud(label)["scalar_label"]], axis=1)
    path.with_suffix(".csv").write_text(f"{POINTS}\n" + "\n".join(",".join(f"{v:.5f}" for v in row) for row in rows))


def as_semantic_kitti(path: Path, label: np.ndarray) -> None:
    values = label.astype(np.uint32)
    values[7] = UNLABELLED
    path.with_suffix(".label").write_bytes((values | 17 << 16).tobytes())  # of instance 17


FORMATS = [as_ply, as_pcd, as_las, as_text, as_bare_text, as_semantic_kitti]


@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_every_format_gives_the_same_labels(write: Callable[[Path, np.ndarray], None], bag: Path, folder: Path) -> None:
    write(folder / "000000", ids())
    data = with_hand_labels(open_input(bag), folder)
    first, second, _ = list(data)
    expected = ids()
    expected[7] = UNLABELLED
    np.testing.assert_array_equal(first.labels[HAND].label, expected)
    assert HAND not in second.labels and not len(data.problems)
    assert data.label_spaces[HAND].names == SIX.names


def test_labels_in_a_bag_are_matched_by_stamp(bag: Path) -> None:
    frames = list(open_input(bag))
    labelled = bag.parent / "labelled"
    with LabelledBagWriter(labelled, SIX) as writer:
        for frame in frames[1:]:
            writer.write_scan(frame.message, Labels(ids(frame.number), np.ones(POINTS, np.float32)))
    found = list(with_hand_labels(open_input(bag), labelled))
    assert HAND not in found[0].labels
    for frame in found[1:]:
        np.testing.assert_array_equal(frame.labels[HAND].label, ids(frame.number))
    with pytest.raises(UserError, match=r"no cloud in .* has a field 'label' .*cmp-seg label"):
        with_hand_labels(open_input(bag), bag)


def test_labels_of_returns_alone_go_to_the_returns() -> None:
    xyz = np.array([[1, 0, 0], [0, 0, 0], [2, 0, 0], [np.nan, 0, 0]])
    label = hand.on_scan(np.array([3, 4]), xyz[[0, 2]], Frame("000000", Scan(xyz)), SIX, "a.ply")
    assert label.tolist() == [3, UNLABELLED, 4, UNLABELLED]


def test_zero_is_no_label_unless_a_class_has_it() -> None:
    space = LabelSpace.model_validate({"name": "a", "classes": [{"name": "road", "id": 40, "color": [0, 0, 0]}]})
    assert hand.known_ids(np.array([0, 40]), space, "a").tolist() == [UNLABELLED, 40]
    assert hand.known_ids(np.array([0, 5]), SIX, "a").tolist() == [0, 5]


XYZ = np.random.default_rng(0).uniform(-5, 5, (50, 3))


@pytest.mark.parametrize(
    ("label", "xyz", "message"),
    [
        (np.zeros(49), XYZ[:49], r"49 labels, but scan 000000 has 50 points .*without deleting"),
        (np.full(50, 7), XYZ, "ids that label space structural6 lacks: 7; it has 0 wall"),
        (np.full(50, 2.5), XYZ, "lacks: 2.5"),
        (np.zeros(50), XYZ + np.array([100, 0, 0]), r"all are shifted by \(100.000, 0.000, 0.000\) m; .*global shift"),
        (np.zeros(50), XYZ[::-1], "in another order"),
        (np.zeros(50), XYZ + np.eye(50, 3) * 0.5, "3 of the 50 points .*change nothing but"),
    ],
    ids=["short", "unknown", "fraction", "shifted", "reordered", "moved"],
)
def test_what_does_not_fit_is_a_clear_error(label: np.ndarray, xyz: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        hand.on_scan(label, xyz, Frame("000000", Scan(XYZ)), SIX, "a.ply")


def test_a_file_that_does_not_fit_costs_its_own_labels_alone(bag: Path, folder: Path) -> None:
    hand.write_label_file(folder / "000000.label", ids()[:-1])
    hand.write_label_file(folder / "000001.label", ids(1))
    data = with_hand_labels(open_input(bag), folder)
    first, second, _ = list(data)
    assert HAND not in first.labels and HAND in second.labels
    assert "000000.label has 399 labels, but scan 000000 has 400 points" in "; ".join(data.problems)
    with pytest.raises(UserError, match="399 labels"):
        data[0]
    (folder / hand.SPACE_FILE).unlink()
    with pytest.raises(UserError, match=r"what do the ids in .* mean"):
        with_hand_labels(open_input(bag), folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("000000.label", b"12345", "5 bytes; a .label file has 4"),
        ("000000.txt", b"1 2 3\n", "3 columns"),
        (
            "000000.txt",
            b"//X Y Z Intensity\n1 2 3 4\n",
            "no field label or .*; it has: Intensity. Rename it to label",
        ),
        ("000000.txt", b"//X Y Label\n1 2 3 4\n", "names 3 columns"),
        ("000000.txt", b"1 2 3 4\n1 2 3\n", "not a table"),
        ("000000.las", b"LASF?", "cannot be read as LAS"),
        ("000000.png", b"", "has no label files"),
    ],
)
def test_damaged_files(name: str, content: bytes, message: str, bag: Path, folder: Path) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        with_hand_labels(open_input(bag), folder)[0]
