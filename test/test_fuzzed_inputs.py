"""Mutated files: read as far as they go or refused in one line; no traceback, no hang, nothing made beside them."""

import io
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from bags import bag_file, scans, write_bag
from rosbags.rosbag2 import CompressionMode
from test_datasets import FACES, VERTEX, XYZI, pcd, ply, wall_scan

from cmp_seg_ros.datasets import open_input
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import point_cloud2
from cmp_seg_ros.scan import Labels

LONGEST = 10.0  # seconds
SPACE = LabelSpace.load("structural6")
NUMBERS = (b"0", b"-1", b"1", b"4294967296", b"99999999999999999999", b"1e9", b"nan", b"", b"x", b"0x10", b"\xff")


def npy(table: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, table)
    return content.getvalue()


def bag(folder: Path, storage: str, **options: CompressionMode) -> bytes:
    return bag_file(write_bag(folder / "bag", storage, {"/points": scans(4)}, **options)).read_bytes()


KINDS: dict[str, Callable[[Path], bytes]] = {  # a whole file of each kind
    "ascii.pcd": lambda _: pcd("ascii", XYZI, list(XYZI)),
    "binary.pcd": lambda _: pcd("binary", XYZI, list(XYZI)),
    "compressed.pcd": lambda _: pcd("binary_compressed", XYZI, list(XYZI)),
    "ascii.ply": lambda _: ply("ascii", FACES + VERTEX),
    "binary.ply": lambda _: ply("binary_big_endian", FACES + VERTEX + "property list uchar int view\n"),
    "a.bin": lambda _: wall_scan()[:, :4].astype("<f4").tobytes(),
    "a.npy": lambda _: npy(wall_scan()[:, :4]),
    "named.npy": lambda _: npy(np.zeros(50, [("x", "f4"), ("y", "f4"), ("z", "f4"), ("t", "u8")])),
    "a.mcap": lambda folder: bag(folder, "mcap"),
    "storage.mcap": lambda folder: bag(folder, "mcap", compression=CompressionMode.STORAGE),
    "a.db3": lambda folder: bag(folder, "sqlite3"),
    "packed.db3.zstd": lambda folder: bag(folder, "sqlite3", compression=CompressionMode.FILE),
    "a.bag": lambda folder: bag(folder, "ros1"),
}


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """The same with some bytes, numbers or parts changed, most often near one of its ends."""
    changed = bytearray(content)

    def place() -> int:
        size = len(changed)
        near = min(size, 512)
        return int(random.choice([random.integers(size), random.integers(near), size - 1 - random.integers(near)]))

    for _ in range(random.integers(1, 6)):
        if not changed:
            break
        at, length = place(), int(random.choice([1, 2, 4, 8, 100]))
        match random.integers(7):
            case 0:
                changed[at] = random.integers(256)
            case 1:
                changed[at : at + length] = random.bytes(length)
            case 2:
                changed[at : at + length] = random.choice([b"\0", b"\xff"]) * length
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[place() :][:length]
            case 5:
                del changed[at:]
            case 6 if found := list(re.finditer(rb"-?\d+", bytes(changed[:2048]))):
                number = found[random.integers(len(found))]
                changed[number.start() : number.end()] = NUMBERS[random.integers(len(NUMBERS))]
    return bytes(changed)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise AssertionError(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read(path: Path) -> int:
    """Read an input to its end, and write its scans as labelled clouds."""
    count = 0
    for frame in open_input(path):
        labels = Labels(np.zeros(len(frame.scan), np.uint8), np.ones(len(frame.scan), np.float32))
        point_cloud2.encode_labelled(frame.message, labels, SPACE)
        count += 1
    return count


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("files", "seed"), [(600, 1), pytest.param(3000, 2, marks=pytest.mark.slow)])
def test_mutated_files(tmp_path: Path, name: str, files: int, seed: int) -> None:
    """So many files of all kinds together."""
    (tmp_path / "whole").mkdir()
    content = KINDS[name](tmp_path / "whole")
    folder = tmp_path / "mutated"
    folder.mkdir()
    (folder / name).write_bytes(content)
    assert read(folder / name) >= 1
    random = np.random.default_rng([seed, list(KINDS).index(name)])
    for _ in range(-(-files // len(KINDS))):
        (folder / name).write_bytes(mutated(content, random))
        before = (folder / name).stat().st_mtime_ns
        try:
            with within(LONGEST):
                read(folder / name)
        except UserError as error:
            assert str(error) and "\n" not in str(error)
        except BaseException:
            (tmp_path / f"failing-{name}").write_bytes((folder / name).read_bytes())
            raise
        assert [file.name for file in folder.iterdir()] == [name]
        assert (folder / name).stat().st_mtime_ns == before


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_mutated_metadata_cost_no_scan(tmp_path: Path, storage: str) -> None:
    path = write_bag(tmp_path / "bag", storage, {"/points": scans(4)})
    content = (path / "metadata.yaml").read_bytes()
    random = np.random.default_rng(3)
    for _ in range(50):
        (path / "metadata.yaml").write_bytes(mutated(content, random))
        with within(LONGEST):
            assert read(path) == 4
        assert len(list(path.iterdir())) == 2
