"""Predictions of other networks: formats, ids, and what does not fit."""

from pathlib import Path

import numpy as np
import pytest

from cmp_seg_ros.datasets import ply
from cmp_seg_ros.datasets.frame import Frame
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.pipeline import CannotLabel
from cmp_seg_ros.evaluation.predictions import Predictions, open_id_map
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Labels, Scan

SIX = LabelSpace.load("structural6")
XYZ = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
XYZ[8] = np.nan  # no return
IDS = np.array([0, 1, 2, 3, 4, 5, 255, 0, 0])
EXPECTED = [0, 1, 2, 3, 4, 5, UNLABELLED, 0, UNLABELLED]
FRAME = Frame("000003", Scan(XYZ), 3)


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".label":
            path.write_bytes((IDS | 7 << 16).astype("<u4").tobytes())  # with instances
        case ".bin":
            path.write_bytes(IDS.astype(np.uint8).tobytes())
        case ".npy":
            np.save(path, IDS.astype(np.float32)[:, None])
        case ".npz":
            np.savez(path, label=IDS.astype(np.uint8), confidence=np.full(9, 0.25, np.float32))
        case ".txt":
            path.write_text("\n".join(map(str, IDS)) + "\n")
        case ".ply":
            ply.write_labelled(path, FRAME.scan, Labels(IDS.astype(np.uint8), np.full(9, 0.5, np.float32)), SIX)
    return path


@pytest.mark.parametrize("suffix", [".label", ".bin", ".npy", ".npz", ".txt", ".ply"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"000003{suffix}")
    labels = Predictions(tmp_path, open_id_map("structural6"))(FRAME)
    assert labels.label.tolist() == EXPECTED
    certain = {".npz": 0.25, ".ply": 0.5}.get(suffix, 1)
    assert labels.confidence.tolist() == [0 if label == UNLABELLED else certain for label in EXPECTED]


def test_wider_bare_numbers(tmp_path: Path) -> None:
    for width in ("<u2", "<u4"):
        (tmp_path / "000003.bin").write_bytes(IDS.astype(width).tobytes())
        assert Predictions(tmp_path, open_id_map(SIX.name))(FRAME).label.tolist() == EXPECTED


def test_ids_of_a_file(tmp_path: Path) -> None:
    space = tmp_path / "rival.yaml"
    space.write_text("into: structural4\nids: {40: floor, 50: wall, 252: non-structural, 0: ignore}\n")
    (tmp_path / "a").mkdir()
    ids = np.array([40, 50, 252, 0, 40, 40, 50, 50, 50], "<u4")
    (tmp_path / "a/000003.label").write_bytes(ids.tobytes())
    labeller = Predictions(tmp_path / "a", open_id_map(space))
    assert labeller.label_space.name == "structural4"
    assert labeller(FRAME).label.tolist() == [1, 0, 3, UNLABELLED, 1, 1, 0, 0, UNLABELLED]
    (tmp_path / "a/000003.label").write_bytes((ids + 1).tobytes())
    with pytest.raises(CannotLabel, match="unknown ids: 1, 41, 51, 253; add them") as caught:
        labeller(FRAME)
    assert caught.value.kind == "its predictions have unknown ids"
    space.write_text("into: structural4\nids: {0: sofa}\n")
    with pytest.raises(UserError, match="names sofa, not in structural4: wall, floor"):
        open_id_map(space)


def test_files_by_name_or_in_order(tmp_path: Path) -> None:
    for name in ("b10", "b9", "b2", "b1"):
        write(tmp_path / f"{name}.npy")
    np.save(tmp_path / "b10.npy", IDS[::-1])
    in_order = Predictions(tmp_path, open_id_map("structural6"), 4)
    assert in_order(FRAME).label.tolist() == [0, 0, UNLABELLED, 5, 4, 3, 2, 1, UNLABELLED]  # b10 is the last
    with pytest.raises(CannotLabel, match="has no file for it"):
        Predictions(tmp_path, open_id_map("structural6"), 5)(FRAME)
    by_key = write(tmp_path / "drive/000003.npy")
    assert Predictions(tmp_path, open_id_map("structural6"))(Frame("drive/000003", Scan(XYZ))).label[5] == 5
    by_key.rename(tmp_path / "drive_000003.npy")  # as `cmp-seg annotate` names them
    assert Predictions(tmp_path, open_id_map("structural6"))(Frame("drive/000003", Scan(XYZ))).label[5] == 5


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("000003.label", b"abc", "has 3 bytes"),
        ("000003.label", IDS[:5].astype("<u4").tobytes(), "has 5 labels, the scan 9 points"),
        ("000003.npy", b"nothing", "cannot be read"),
        ("000003.txt", b"wall\n", "is no number"),
        ("000003.txt", b"0.5 " * 9, "no whole numbers"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        Predictions(tmp_path, open_id_map("structural6"))(FRAME)
    assert name in str(caught.value)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no predictions"):
        Predictions(tmp_path, open_id_map("structural6"))
