"""Folders of results: whose they are, and that nobody else's are touched."""

import errno
import json
from pathlib import Path

import pytest

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.outputs import REPORT, claim, made_by, remove_bag, require_writable, write_report, writing


def test_asking_leaves_nothing(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b", "label")
    assert not list(tmp_path.iterdir())


def test_a_command_replaces_its_own_results_finished_or_not(tmp_path: Path) -> None:
    names = (REPORT, "labelled")
    for _ in range(2):  # at first there is nothing, then a run cut short
        claim(tmp_path, "label", names)
        assert made_by(tmp_path) == "label"
        (tmp_path / "labelled").mkdir(exist_ok=True)
    write_report(tmp_path, {"command": "label", "scans": 3})
    claim(tmp_path, "label", names)


@pytest.mark.parametrize("report", [None, "", "[1]", "{}", '"label"', json.dumps({"command": "simulate"})])
def test_what_others_have_left_is_refused_by_name(tmp_path: Path, report: str | None) -> None:
    (tmp_path / "labelled").mkdir()
    if report is not None:
        (tmp_path / REPORT).write_text(report)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"already has .*labelled, not made by cmp-seg label; give another"):
        claim(tmp_path, "label", (REPORT, "labelled"))
    assert sorted(tmp_path.iterdir()) == before


def test_other_files_are_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "scan.pcd").write_text("mine")
    claim(tmp_path, "label", (REPORT, "labelled"))


@pytest.mark.parametrize("inside", ["scans", "scans/000000.npz", "link"])
def test_a_source_in_what_would_be_replaced_is_refused(tmp_path: Path, inside: str) -> None:
    claim(tmp_path, "label")
    (tmp_path / "scans").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "scans")
    with pytest.raises(UserError, match=r"is in .*scans, which cmp-seg label would replace; give another --out"):
        claim(tmp_path, "label", (REPORT, "scans"), source=tmp_path / inside)
    claim(tmp_path, "label", (REPORT, "scans"), source=tmp_path)  # beside it


def test_a_bag_is_removed_without_what_is_not_its_own(tmp_path: Path) -> None:
    remove_bag(tmp_path / "none")
    bag = tmp_path / "labelled"
    bag.mkdir()
    for name in ("metadata.yaml", "labelled.mcap", "notes.txt"):
        (bag / name).write_text("")
    with pytest.raises(UserError, match=r"also holds notes\.txt; move them elsewhere"):
        remove_bag(bag)
    assert len(list(bag.iterdir())) == 3
    (bag / "notes.txt").unlink()
    remove_bag(bag)
    assert not bag.exists()


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim(tmp_path, "label")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="full"):
        write_report(tmp_path, {"command": "label"})
    assert made_by(tmp_path) == "label" and [path.name for path in tmp_path.iterdir()] == [REPORT]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for out in (tmp_path / "file", tmp_path / "file" / "x", tmp_path / "dangling"):
        with pytest.raises(UserError, match=r"cannot be written: .*; give another --out"):
            require_writable(out, "label")
        with pytest.raises(UserError, match=r"cannot be written: .*; give another --out"), writing(out):
            raise AssertionError


def test_other_errors_are_not_taken_for_the_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"out cannot be written: full"), writing(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "full")  # as write() says it, without a name
    with pytest.raises(OSError, match="none left"), writing(tmp_path / "out"):
        raise OSError(errno.ENOMEM, "none left")
    with pytest.raises(FileNotFoundError), writing(tmp_path / "out"):
        (tmp_path / "input.pcd").read_bytes()
