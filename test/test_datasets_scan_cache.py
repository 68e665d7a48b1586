"""Cached scans: simulated once, again when the simulator changes, and not when a colour changes."""

from pathlib import Path

import numpy as np
import pytest

from cmp_seg_ros import UserError
from cmp_seg_ros.datasets import buildings, scan_cache, seed_files
from cmp_seg_ros.datasets.frame import TRUTH, Returns
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.simulation import version


def scans(seed: int) -> list[Returns]:
    rng = np.random.default_rng(seed)
    label, ring = (rng.integers(0, 4, 50).astype(np.uint8) for _ in range(2))
    return [Returns(rng.random((50, 3), np.float32), rng.random(50, np.float32), ring, label) for _ in range(2)]


@pytest.fixture
def kept(tmp_path: Path) -> scan_cache.DataSet:
    data = scan_cache.DataSet(tmp_path, range(5), 2)
    data.file(0).parent.mkdir()
    for seed in range(4):
        data.keep(seed, (scan._asdict() for scan in scans(seed)))
    return data


def test_frames_are_what_was_kept(kept: scan_cache.DataSet) -> None:
    assert len(kept) == 10 and [frame.key for frame in (kept[0], kept[7])] == ["0/0", "3/1"]
    for found, expected in zip(kept[7].returns(), scans(3)[1], strict=True):
        np.testing.assert_array_equal(found, expected)
    parts = list(kept.parts())
    assert [len(part) for part in parts] == [2] * 5 and parts[3][1].key == "3/1"
    assert kept[7].labels[TRUTH].space.name == "indoor"
    with pytest.raises(IndexError):
        kept[10]


@pytest.mark.slow
def test_they_are_those_of_the_simulator(tmp_path: Path) -> None:
    data = scan_cache.DataSet(tmp_path, [3], 1, "vlp-16")
    assert list(data.fill(1)) == [3] and list(data.fill(1)) == [3]
    simulated = buildings.DataSet([3], 1, "vlp-16")[0]
    for found, expected in zip(data[0].returns(), simulated.returns(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_damaged_file_is_named_in_one_line(kept: scan_cache.DataSet) -> None:
    np.savez(kept.file(1), other=np.zeros(3))
    with pytest.raises(
        UserError, match=r"^simulated scans .*1.npz cannot be read: .*; remove the file and run the command again$"
    ) as raised:
        kept[2]
    assert "\n" not in str(raised.value)


def test_scans_that_were_cut_off_are_simulated_again(kept: scan_cache.DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    simulated: list[int] = []
    monkeypatch.setattr(seed_files, "process_map", lambda function, items, _: map(function, items))
    monkeypatch.setattr(scan_cache.DataSet, "make_file", lambda _, seed: simulated.append(seed) or seed)
    kept.file(2).write_bytes(kept.file(2).read_bytes()[:500])
    assert list(kept.fill()) == [0, 1, 3, 2, 4]
    assert simulated == [2, 4]


def test_another_simulator_has_files_of_its_own_and_another_colour_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensors = tmp_path / "sensors"
    sensors.mkdir()
    load = LabelSpace.load

    def file() -> Path:
        version.simulator_version.cache_clear()
        return scan_cache.DataSet(tmp_path, [7], 2).file(7)

    files = [file()]
    (sensors / "new.yaml").write_text("beams: 16")
    monkeypatch.setattr(version, "data_files", lambda: [sensors / "new.yaml"])
    files.append(file())
    (sensors / "new.yaml").write_text("beams: 32")
    files.append(file())

    def changed(name: str, **change: object) -> LabelSpace:
        space = load(name)
        return space.model_copy(update={"classes": [c.model_copy(update=change) for c in space.classes]})

    monkeypatch.setattr(LabelSpace, "load", lambda name: changed(name, color=(1, 2, 3)))
    assert file() == files[-1]
    monkeypatch.setattr(LabelSpace, "load", lambda name: changed(name, id=3))
    files.append(file())
    assert len(set(files)) == 4 and {file.name for file in files} == {"7.npz"}
    version.simulator_version.cache_clear()
