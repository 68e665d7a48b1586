"""The cache of built engines: whole or not at all, built once, never one that belongs to something else."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmp_seg_ros.digest import digest
from cmp_seg_ros.engine import cache
from cmp_seg_ros.errors import UserError

KEY = cache.Key("0123456789ab", "openvino", "2026.4", "deadbeef", "bf16", "NVIDIA A40.8.6")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "engines")
    return tmp_path / "engines"


class Build:
    """Counts how often it is asked."""

    def __init__(self, built: bytes = b"engine\n\0" * 100) -> None:
        self.built, self.times = built, 0

    def __call__(self) -> bytes:
        self.times += 1
        return self.built


def test_built_once_and_read_afterwards(folder: Path) -> None:
    build = Build()
    assert cache.obtain(KEY, build) == (build.built, True)
    assert cache.obtain(KEY, build) == (build.built, False)
    path = cache.path_of(KEY)
    assert path.parent == folder and path.name == "0123456789ab-openvino-2026.4-deadbeef-bf16-NVIDIA_A40.8.6.engine"
    assert path.stat().st_mode & 0o777 == 0o644
    assert cache.obtain(KEY, build, fresh=True).built


@pytest.mark.parametrize("field", cache.Key._fields)
def test_whatever_differs_is_built_anew(field: str) -> None:
    build, other = Build(b"one"), Build(b"other")
    cache.obtain(KEY, build)
    assert cache.obtain(KEY._replace(**{field: "else"}), other).content == b"other"
    assert cache.obtain(KEY, build) == (b"one", False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.data())
def test_a_damaged_file_is_noticed_and_rebuilt(data: Any) -> None:
    build = Build()
    cache.obtain(KEY, build, fresh=True)
    path = cache.path_of(KEY)
    content = path.read_bytes()
    if data.draw(st.booleans()):
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    else:  # one byte of the engine or of the checksum is another
        place = data.draw(st.integers(0, len(content) - 1))
        other = bytes([content[place] ^ data.draw(st.integers(1, 255))])
        path.write_bytes(content[:place] + other + content[place + 1 :])
    assert cache.obtain(KEY, build) == (build.built, True)
    assert path.read_bytes() == content


def test_the_engine_of_another_bundle_is_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    other = KEY._replace(bundle="ba9876543210")
    cache.obtain(other, Build(b"of another bundle"))
    cache.path_of(other).rename(cache.path_of(KEY))
    assert cache.obtain(KEY, Build()).built
    assert "belongs to another engine, and is rebuilt" in caplog.text


def test_a_folder_that_cannot_be_made(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.write_text("a file where the folder should be")
    build = Build()
    assert cache.obtain(KEY, build) == (build.built, True) and build.times == 1
    assert "cannot be kept" in caplog.text and "XDG_CACHE_HOME" in caplog.text
    with pytest.raises(UserError, match=f"cannot be kept in {folder}: .*XDG_CACHE_HOME"):
        cache.obtain(KEY, build, must_keep=True)
    cache.remember(KEY, "parity", b"found")
    assert cache.recall(KEY, "parity") == b""


def test_what_build_raises_is_not_taken_for_a_full_cache() -> None:
    def build() -> bytes:
        raise UserError("the runtime refuses")

    with pytest.raises(UserError, match="the runtime refuses"):
        cache.obtain(KEY, build)
    assert cache.obtain(KEY, Build(b"later")).content == b"later"  # the lock was given back


RIVAL = """
import logging, sys, time
from pathlib import Path
from cmp_seg_ros.engine import cache
logging.basicConfig(level=logging.INFO)
folder, mine = Path(sys.argv[1]), sys.argv[2]
cache.folder = lambda: folder / "engines"
def build():
    with (folder / "builds").open("a") as file:
        file.write(mine + "\\n")
    (folder / "building").touch()
    end = time.monotonic() + 60
    while not (folder / "go").exists() and time.monotonic() < end:
        time.sleep(0.01)
    return b"engine"
print(cache.obtain(cache.Key(*"abcdef"), build).content.decode())
"""


def rival(folder: Path, name: str) -> "subprocess.Popen[str]":
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", RIVAL, str(folder), name], **pipes)


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()


def test_of_two_processes_one_builds_and_one_waits(tmp_path: Path) -> None:
    first = rival(tmp_path, "first")
    wait_for(tmp_path / "building", first)
    second = rival(tmp_path, "second")
    line = ""
    while "waiting for it" not in line:
        assert second.stderr is not None
        line = second.stderr.readline()
        assert line, "the second process ended without waiting"
    (tmp_path / "go").touch()
    assert first.communicate(timeout=60)[0] == second.communicate(timeout=60)[0] == "engine\n"
    assert (tmp_path / "builds").read_text() == "first\n"


def test_a_process_that_dies_while_building_blocks_nobody(tmp_path: Path) -> None:
    first = rival(tmp_path, "first")
    wait_for(tmp_path / "building", first)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate(timeout=60)
    (tmp_path / "go").touch()
    second = rival(tmp_path, "second")
    assert second.communicate(timeout=60)[0] == "engine\n"
    assert (tmp_path / "builds").read_text() == "first\nsecond\n"


def test_what_was_found_out_is_remembered() -> None:
    assert cache.recall(KEY, "parity") == b""
    cache.remember(KEY, "parity", b"found")
    assert cache.recall(KEY, "parity") == b"found"
    assert cache.recall(KEY, "speed") == cache.recall(KEY._replace(precision="fp32"), "parity") == b""


def test_what_is_not_used_for_long_is_deleted_when_something_is_built(folder: Path) -> None:
    """Of a bundle that is gone, say; what was read or recalled meanwhile stays, however long ago it was built."""
    gone, used, fresh = (KEY._replace(bundle=name * 12) for name in "abc")
    for key in (gone, used):
        cache.obtain(key, Build())
        cache.remember(key, "parity", b"found")
    old = time.time() - 1.1 * cache.UNUSED
    for path in folder.iterdir():
        os.utime(path, (old, old))
    cache.obtain(used, Build(b"not built"))
    cache.recall(used, "parity")
    assert cache.path_of(gone).exists()
    cache.obtain(fresh, Build())
    left = {path.name for path in folder.iterdir() if path.suffix != ".lock"}
    assert left == {f"{used}.engine", f"{used}.parity.json", f"{fresh}.engine"}


def test_a_digest_changes_with_files_and_versions(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    other.write_text("2")
    found = {digest([one]), digest([one, other]), digest([one], "0.1"), digest([one], "0.2")}
    assert len(found) == 4 and digest([one, other]) == digest([other, one])


def test_the_processor_has_a_name_without_spaces() -> None:
    assert cache.processor() == cache.processor() and not set(cache.processor()) & set(" /\\")
