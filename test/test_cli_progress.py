"""Progress without a terminal: a plain line now and then."""

import pytest

from cmp_seg_ros.cli import progress


def test_lines_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    monkeypatch.setattr(progress, "monotonic", lambda: now)
    with progress.progress_bar("scans", 2000) as update:
        for done in range(1, 2001):
            now += 0.5 if done <= 1000 else 0.01  # a minute for 120 scans, then for many
            update(done)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "scans: 120 of 2,000, 0:01:00" and lines[-1] == "scans: 1,160 of 2,000, 0:08:22"
    assert 8 <= len(lines) <= 10
    with progress.progress_bar("scans", None) as update:
        now += 61
        update(7)
    with progress.status_bar("training", disable=True) as say:
        say(0.5, "step 5", True)
    with progress.status_bar("training") as say:
        say(0.1, "step 1", False)
        say(0.2, "step 2", True)
    assert capsys.readouterr().err.splitlines() == ["scans: 7, 0:01:01", "step 2"]
