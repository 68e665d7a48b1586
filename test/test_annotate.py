"""Labelling by hand: what is exported, corrected and read back; map labels carried to every scan."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bags import scans, write_bag

from cmp_seg_ros.datasets import open_input, pcd, ply, point_files
from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.datasets.frame import HAND, PREDICTIONS, Frame, PointLabels
from cmp_seg_ros.datasets.hand import with_hand_labels
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.pipeline import StoredLabels, run
from cmp_seg_ros.evaluation.report import Report
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.mapping.annotate import Import, MapExport, ScanExport, write_hand_labels
from cmp_seg_ros.scan import UNLABELLED, Scan

SIX = LabelSpace.load("structural6")
WALL, FLOOR, OBJECT = 0, 1, 4
PLACES = np.random.default_rng(0).uniform(-3, 3, (300, 3)).round(1) + 0.05  # in the middle of voxels of 0.1 m


class Drive(DataSet):
    """Four scans of the same places, from a lidar that moves; every place is labelled wall; one point is no return."""

    def __init__(self) -> None:
        super().__init__(Path("drive"))
        self.label_spaces = {PREDICTIONS: SIX}
        self.count = 4

    def __iter__(self) -> Iterator[Frame]:
        for i in range(4):
            T = np.eye(4)
            T[:3, 3] = 0.2 * i, 0.1 * i, 0
            xyz = np.concatenate([PLACES - T[:3, 3], np.zeros((1, 3))])
            label = np.full(len(xyz), WALL, np.uint8)
            label[-1] = UNLABELLED
            yield Frame(
                f"a/{i}", Scan(xyz, stamp=(i + 1) * 10**8), i, sequence="a", locate=lambda *_, T=T: T,
                labels={PREDICTIONS: PointLabels(SIX, label)},
            )  # fmt: skip


def exported(out: Path, as_map: bool) -> Path:
    consumer = MapExport(Drive(), SIX, out, "auto", 0.1) if as_map else ScanExport(Drive(), SIX, out)
    run(Drive(), StoredLabels(SIX), [consumer], Report.of("annotate", Drive()), out)
    return out


def corrected(path: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
    ply.write(path, change({name: values.copy() for name, values in point_files.read(path).items()}), SIX)


def low_is_floor(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    columns["label"][columns["z"] < 0] = FLOOR
    return columns


def test_labels_of_a_map_are_carried_back_to_every_scan(tmp_path: Path) -> None:
    folder = exported(tmp_path / "map", as_map=True)
    corrected(folder / "map.ply", low_is_floor)
    (tmp_path / "hand").mkdir()
    result = write_hand_labels(Import(folder), Drive(), tmp_path / "hand")
    floor = int((PLACES[:, 2] < 0).sum())
    assert result == {"scans": 4, "points": 4 * 301, "unlabelled": 4, "by_class": result["by_class"]}
    assert result["by_class"]["floor"] == 4 * floor and result["by_class"]["wall"] == 4 * (300 - floor)
    for frame in with_hand_labels(Drive(), tmp_path / "hand"):
        np.testing.assert_array_equal(frame.labels[HAND].label[:-1], np.where(PLACES[:, 2] < 0, FLOOR, WALL))
        assert frame.labels[HAND].label[-1] == UNLABELLED


def test_scans_come_back_in_any_format_even_in_another_order(tmp_path: Path) -> None:
    """The field `index` tells the order."""
    folder = exported(tmp_path / "scans", as_map=False)
    assert sorted(path.name for path in folder.glob("*.ply")) == [f"a_{i}.ply" for i in range(4)]
    columns = low_is_floor({name: values.copy() for name, values in point_files.read(folder / "a_1.ply").items()})
    pcd.write(folder / "a_1.pcd", {name: columns[name][::-1].astype(np.float32) for name in columns})
    floor = [int((Import(folder).labels_of(frame) == FLOOR).sum()) for frame in Drive()]
    assert floor == [0, int((PLACES[:, 2] < 0).sum()), 0, 0]


@pytest.mark.parametrize("as_map", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {name: values[1:] for name, values in c.items()}, "299 points, exported were 300; label without"),
        (lambda c: c | {"x": c["x"] + np.float32(2)}, r"all are shifted by \(2\.000"),
        (lambda c: c | {"label": np.full(len(c["x"]), 9, np.uint8)}, "lacks: 9"),
        (lambda c: c | {"index": np.zeros(len(c["x"]), np.uint32)}, "has points twice"),
        (lambda c: {name: c[name] for name in ("x", "y", "z", "index")}, "no field label"),
    ],
    ids=["fewer", "shifted", "unknown", "twice", "without"],
)
def test_what_has_changed_beside_the_labels_is_an_error(
    change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], message: str, as_map: bool, tmp_path: Path
) -> None:
    folder = exported(tmp_path / "out", as_map)
    corrected(folder / ("map.ply" if as_map else "a_0.ply"), change)
    with pytest.raises(UserError, match=message):
        Import(folder).labels_of(next(iter(Drive())))


def test_another_recording_or_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    folder = exported(tmp_path / "out", as_map=True)
    frame = next(iter(Drive()))
    other = Frame("a/0", Scan(frame.scan.xyz + 1), 0)
    with pytest.raises(UserError, match=r"scan a/0 of .* has other points than when it was exported"):
        Import(folder).labels_of(other)
    with pytest.raises(UserError, match=r"has no annotate\.json"):
        Import(tmp_path)
    (folder / "map.ply").unlink()
    with pytest.raises(UserError, match=r"has no map\.ply"):
        Import(folder)


def test_the_commands(run: Callable[..., SimpleNamespace], tiny_bundle: Path, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "drive", "mcap", {"/points": scans(3)})
    out, back = tmp_path / "out", tmp_path / "back"
    model = ("--model", tiny_bundle, "--engine", "reference")
    done = run("annotate", "export", bag, "--out", out, "--every", 2, *model)
    assert done.code == 0 and "2 clouds of 800 points" in done.out, done.err
    done = run("annotate", "import", out, "--out", back, "--json")
    assert done.code == 0 and json.loads(done.out)["scans"] == 2, done.err
    found = list(with_hand_labels(open_input(bag), back))
    assert [HAND in frame.labels for frame in found] == [True, False, True]
    before = (out / "report.json").read_bytes()
    done = run("annotate", "export", bag, "--out", out, *model)
    assert done.code == 1 and "may hold labels made by hand; give another --out" in done.err
    assert (out / "report.json").read_bytes() == before
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "000000.label").write_bytes(b"")
    done = run("annotate", "import", out, "--out", tmp_path / "theirs")
    assert done.code == 1 and "000000.label, not made by cmp-seg annotate; give another --out" in done.err
    done = run("annotate", "import", tmp_path, "--out", tmp_path / "x")
    assert done.code == 1 and "give the folder of cmp-seg annotate export" in done.err
