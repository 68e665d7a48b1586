"""cmp-seg convert: pairing, the unified form, splits, resuming, merging, added labels, bad input."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from bags import STORAGES, Recording, bag_path, columns, jpeg, scans, write_bag
from conftest import Run

from cmp_seg_ros import datasets
from cmp_seg_ros.datasets import conversion, open_input, shards
from cmp_seg_ros.datasets.added_labels import BLOCK, write_labels
from cmp_seg_ros.datasets.frame import PointLabels
from cmp_seg_ros.datasets.splits import GAP, split
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import CalibratedCamera, CalibratedLidar, Calibration
from cmp_seg_ros.label_space import LabelSpace

SECOND = 10**9
START = 1_700_000_000 * SECOND
T_CAMERA_LIDAR: list[list[float]] = [[0.0, -1, 0, 0.05], [0, 0, -1, -0.1], [1, 0, 0, -0.02], [0, 0, 0, 1]]
CAMERAS = ("left", "right")


def calibration(path: Path, offset: float = 0.0) -> Path:
    camera = CalibratedCamera(
        model="pinhole", intrinsics=(30, 30, 16, 12), width=32, height=24, T_camera_lidar=T_CAMERA_LIDAR
    )
    lidar = CalibratedLidar(T_base_lidar=np.eye(4).tolist(), time_offset=offset, intensity_mean=3, intensity_std=2)
    Calibration(cameras=dict.fromkeys(CAMERAS, camera), lidars={"top": lidar}).save(path)
    return path


def picture(number: int) -> np.ndarray:
    """(24, 32, 3) of one colour, by which it is known again."""
    return np.full((24, 32, 3), (number % 250, 255 - number % 250, 128), np.uint8)


def record(path: Path, storage: str, count: int = 30, offset: float = 0.0) -> dict[str, np.ndarray]:
    """Scans at 10 Hz; raw images at 15 Hz and compressed ones at 7 Hz, both with jitter and recorded late, in a bag
    with its calibration beside it. Stamps of images by camera."""
    rng = np.random.default_rng(0)
    calibration(path.parent / "calibration.yaml", offset)
    end = START + count * SECOND // 10
    stamps = {
        name: np.arange(START - SECOND // 10, end + SECOND // 10, int(SECOND / rate), dtype=np.int64)
        for name, rate in (("left", 15), ("right", 7))
    }
    stamps = {name: found + rng.integers(-20_000_000, 20_000_000, len(found)) for name, found in stamps.items()}
    with Recording(path, storage) as bag:
        events = [(START + i * SECOND // 10, "scan", i) for i in range(count)]
        events += [(int(stamp), name, i) for name, found in stamps.items() for i, stamp in enumerate(found)]
        late = {"scan": 60_000_000, "left": 0, "right": 250_000_000}
        for stamp, what, i in sorted(events, key=lambda event: event[0] + late[event[1]]):
            time = stamp + late[what]
            if what == "scan":
                bag.cloud("/points", stamp - int(offset * SECOND), columns(i), time=time)
                bag.odometry("/odometry", stamp, (i / 10, 0.0, 0.0))
            elif what == "left":
                bag.image("/robot/left/image_raw", stamp, picture(i), time=time)
            else:
                bag.jpeg("/robot/right/image_raw/compressed", stamp, jpeg(picture(i)), time=time)
    return stamps


@pytest.mark.parametrize("storage", STORAGES)
def test_every_scan_gets_its_nearest_image(tmp_path: Path, storage: str, run: Run) -> None:
    stamps = record(bag_path(tmp_path, storage), storage, offset=0.025)
    assert run("convert", bag_path(tmp_path, storage), "--out", tmp_path / "out", "--processes", 1).code == 0
    data = open_input(tmp_path / "out")
    assert len(data) == 30
    for frame, original in zip(data, open_input(bag_path(tmp_path, storage)), strict=True):
        stamp = START + frame.number * SECOND // 10  # by the cameras' clock
        assert frame.scan.stamp == stamp - 25_000_000 and frame.camera_offset == 25_000_000
        np.testing.assert_array_equal(frame.scan.xyz, original.scan.xyz)
        np.testing.assert_array_equal(frame.scan.intensity, frame.number)
        assert frame.images.keys() == set(CAMERAS)
        for name, image in frame.images.items():
            nearest = int(np.abs(stamps[name] - stamp).argmin())
            assert image.stamp == stamps[name][nearest]
            assert np.abs(image.rgb().astype(int) - picture(nearest)).max() < 5
            assert image.camera is not None and image.camera.T_camera_lidar == T_CAMERA_LIDAR
    assert frame.images["right"].jpeg() == jpeg(picture(nearest))  # copied as it was
    assert data[3].intensity_statistics == (3, 2) and data[3].T_base_lidar is not None


@pytest.mark.parametrize(
    ("topic", "said", "images"),
    [
        (None, "no topic of the name of camera 'front': the images on /left/image, the only ones, are taken", 1),
        ("/left/image", "", 1),
        ("/right/image", "no images for camera 'front' (of /left/image)", 0),
    ],
)
def test_images_of_another_name_are_not_taken_silently(
    topic: str | None, said: str, images: int, tmp_path: Path
) -> None:
    with Recording(tmp_path / "drive", "mcap") as bag:
        bag.cloud("/points", START, columns(0), time=START)
        bag.image("/left/image", START, picture(0), time=START)
    known = Calibration.load(calibration(tmp_path / "calibration.yaml"))
    front = known.camera("left").model_copy(update={"topic": topic})
    known.model_copy(update={"cameras": {"front": front}}).save(tmp_path / "calibration.yaml")
    data = open_input(tmp_path / "drive", sensors=conversion.SensorSet.around(tmp_path / "drive"))
    assert len(data[0].images) == images
    assert said in "; ".join(data.notes) and bool(said) == bool(data.notes)


def test_poses_at_any_stamp(tmp_path: Path, run: Run) -> None:
    record(tmp_path / "drive", "mcap")
    run("convert", tmp_path / "drive", "--out", tmp_path / "out")
    frame = open_input(tmp_path / "out")[7]
    assert frame.T_world_lidar is not None
    assert frame.T_world_lidar[0, 3] == pytest.approx(0.7)
    between = frame.locate(frame.scan.stamp - SECOND // 20)
    assert between is not None and between[0, 3] == pytest.approx(0.65)


def test_images_are_found_backwards_and_at_random(tmp_path: Path) -> None:
    stamps = record(tmp_path / "drive", "mcap")["left"]
    data = open_input(tmp_path / "drive", sensors=conversion.SensorSet.around(tmp_path / "drive"))
    for number in (20, 3, 4, 4, 29, 0):
        image = data[number].images["left"]
        nearest = int(np.abs(stamps - (START + number * SECOND // 10)).argmin())
        np.testing.assert_array_equal(image.rgb(), picture(nearest))


def content(folder: Path) -> dict[str, bytes]:
    """All files of a set but the report, which says how long it took."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "report.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_killed_process_leaves_what_can_be_gone_on_with(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "PART", 7)
    monkeypatch.setattr(shards, "LARGEST", 40_000)  # three scans
    record(tmp_path / "drive", "mcap", 120)
    script = (
        "import sys; from pathlib import Path; from cmp_seg_ros.datasets import conversion, shards\n"
        "conversion.PART, shards.LARGEST = 7, 40_000\n"
        "work = conversion.Conversion(conversion.sources_of([Path(sys.argv[1])]), Path(sys.argv[2]))\n"
        "for done in work.run(1): print(done, flush=True)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "drive"), str(tmp_path / "killed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"7\n"
        process.kill()
    with pytest.raises(UserError, match="not converted to its end"):
        open_input(tmp_path / "killed")
    assert run("convert", tmp_path / "drive", "--out", tmp_path / "killed", "--processes", 1).code == 0
    assert run("convert", tmp_path / "drive", "--out", tmp_path / "whole", "--processes", 1).code == 0
    assert not [name for name in content(tmp_path / "killed") if name.endswith(".json")]
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert all(path.stat().st_size <= shards.LARGEST + 2048 for path in (tmp_path / "whole/shards").iterdir())
    before = (tmp_path / "whole/report.json").read_bytes()
    assert run("convert", tmp_path / "drive", "--out", tmp_path / "whole").code == 0  # nothing left to do
    assert (tmp_path / "whole/report.json").read_bytes() == before
    counts = json.loads(before)["splits"]
    assert counts == {"train": 120}  # 12 s: too short to be cut


def test_checksums_and_plain_tars(tmp_path: Path, run: Run) -> None:
    record(tmp_path / "drive", "sqlite3")
    run("convert", tmp_path / "drive", "--out", tmp_path / "out")
    entries = shards.read_index(tmp_path / "out")

    def is_whole(entry: shards.Entry) -> bool:
        content = shards.read_part(tmp_path / "out/shards" / entry.shard, entry.offset, entry.size)
        return shards.sha256(content) == entry.sha256

    assert all(map(is_whole, entries))
    shard = tmp_path / "out/shards" / entries[3].shard
    with tarfile.open(shard) as tar:
        names = tar.getnames()
        about = json.load(tar.extractfile("drive/000003.json"))  # type: ignore[arg-type]
    assert names[:4] == [f"drive/000000.{name}" for name in ("points.npy", "left.jpg", "right.jpg", "json")]
    assert about["sequence"] == "drive" and about["cameras"]["left"]["camera"]["T_camera_lidar"] == T_CAMERA_LIDAR
    damaged = bytearray(shard.read_bytes())
    damaged[entries[3].offset + 700] ^= 1
    shard.write_bytes(damaged)
    assert [i for i, entry in enumerate(entries) if not is_whole(entry)] == [3]


def test_splits_are_stretches_with_ten_seconds_between() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        stamps = START + np.cumsum(rng.integers(1, 2 * SECOND, int(rng.integers(200, 2000))))
        names = split([stamps.tolist()])[0]
        places = {name: [i for i, one in enumerate(names) if one == name] for name in ("train", "val", "test")}
        assert all(found == list(range(found[0], found[-1] + 1)) for found in places.values())
        gaps = [stamps[places[b][0]] - stamps[places[a][-1]] for a, b in (("train", "val"), ("val", "test"))]
        assert min(gaps) >= GAP
        kept = sum(map(len, places.values()))
        assert abs(len(places["train"]) / kept - 0.7) < 0.08
        assert len(stamps) - kept <= 20 + 0.2 * len(stamps)


def test_short_sequences_go_to_one_split_each() -> None:
    stamps = [[START + i * SECOND for i in range(30)] for _ in range(20)]
    found = split(stamps)
    assert all(len(set(names)) == 1 for names in found)
    assert [sum(names[0] == name for names in found) for name in ("train", "val", "test")] == [14, 3, 3]


def test_without_stamps_the_order_is_cut() -> None:
    assert split([[0] * 20])[0] == ["train"] * 14 + ["val"] * 3 + ["test"] * 3
    assert split([[0] * 4]) == [["train"] * 4]


def test_sets_are_merged(tmp_path: Path, run: Run) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        record(tmp_path / name / "drive", "mcap", 5)
        assert run("convert", tmp_path / name / "drive", "--out", tmp_path / name / "set").code == 0
    space = LabelSpace.load("structural6")
    with write_labels(tmp_path / "a/set", "pseudo", space) as writer:
        writer.add(2, PointLabels(space, np.full(400, 3, np.uint8)))
    out = tmp_path / "merged"
    assert run("convert", tmp_path / "a/set", tmp_path / "b/set", "--out", out, "--processes", 1).code == 0
    data = open_input(out)
    assert [frame.key for frame in data] == [f"{s}/{i:06d}" for s in ("drive", "set-2-drive") for i in range(5)]
    np.testing.assert_array_equal(data[2].labels["pseudo"].label, 3)
    assert data[2].labels["pseudo"].space == space and not data[7].labels
    assert data[7].images["right"].jpeg() == open_input(tmp_path / "b/set")[2].images["right"].jpeg()


def test_a_shard_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    entry = shards.Entry("a/0", "", 0, 0, "", {}, 0, 0)
    with shards.ShardWriter(tmp_path, "part") as writer:
        writer.add(entry, {"x": b"1"})
        assert not list(tmp_path.glob("*.tar"))
    whole = (tmp_path / "part-00.tar").read_bytes()
    with pytest.raises(OSError, match="full"), shards.ShardWriter(tmp_path, "part") as writer:
        writer.add(entry, {"x": b"2"})
        raise OSError("full")
    assert [path.name for path in tmp_path.iterdir()] == ["part-00.tar"]
    assert (tmp_path / "part-00.tar").read_bytes() == whole


def test_a_set_keeps_its_calibration(tmp_path: Path, run: Run) -> None:
    file, made = calibration(tmp_path / "robot.yaml"), tmp_path / "set"
    for name in ("one", "two"):
        record(tmp_path / name, "mcap", 5)
    assert run("convert", tmp_path / "one", "--out", made).code == 0
    ran = run("convert", made, "--calibration", file, "--out", tmp_path / "again")
    assert ran.code == 1 and "set is a converted set and keeps the calibration" in ran.err.replace("\n", " ")
    ran = run("convert", made, tmp_path / "two", "--calibration", file, "--out", tmp_path / "both")
    assert ran.code == 0 and len(open_input(tmp_path / "both")) == 10, ran.err


def test_labels_are_added_later_block_by_block(tmp_path: Path, run: Run) -> None:
    clouds = scans(20) * 5
    write_bag(tmp_path / "drive", "mcap", {"/points": clouds})
    run("convert", tmp_path / "drive", "--out", tmp_path / "out")
    before = content(tmp_path / "out")
    space = LabelSpace.load("structural6")

    def labels(number: int) -> PointLabels:
        return PointLabels(space, np.full(400, number % 6, np.uint8), np.full(400, number / 100, np.float32))

    with pytest.raises(KeyboardInterrupt), write_labels(tmp_path / "out", "pseudo", space, {"teacher": "a"}) as writer:
        for number in range(100):
            if number == 80:
                raise KeyboardInterrupt
            writer.add(number, labels(number))
    with write_labels(tmp_path / "out", "pseudo", space, {"teacher": "a"}) as writer:
        assert writer.done == set(range(BLOCK))
        for number in range(BLOCK, 99):
            writer.add(number, labels(number))
    data = open_input(tmp_path / "out")
    assert data.label_spaces == {"pseudo": space}
    for number in (0, 63, 64, 98):
        found = data[number].labels["pseudo"]
        np.testing.assert_array_equal(found.label, number % 6)
        assert found.confidence is not None
        np.testing.assert_allclose(found.confidence, number / 100, atol=1e-3)
    assert not data[99].labels
    assert {name: what for name, what in content(tmp_path / "out").items() if name in before} == before
    with pytest.raises(UserError, match=r"labels made with other settings \(teacher\)"):
        write_labels(tmp_path / "out", "pseudo", space, {"teacher": "b"})
    assert not write_labels(tmp_path / "out", "pseudo", space, {"teacher": "b"}, again=True).done
    with pytest.raises(UserError, match="cannot be the name"):
        write_labels(tmp_path / "out", "../pseudo", space)


def test_bad_inputs_have_clear_errors(tmp_path: Path, run: Run) -> None:
    bag = tmp_path / "drive"
    record(bag, "mcap", 3)
    (tmp_path / "calibration.yaml").write_text((tmp_path / "calibration.yaml").read_text().replace("left", "front"))
    assert run("convert", bag, "--out", tmp_path / "some").code == 0  # of one camera of two
    assert "no images for camera 'front'" in json.loads((tmp_path / "some/report.json").read_text())["notes"][0]
    (tmp_path / "calibration.yaml").write_text((tmp_path / "calibration.yaml").read_text().replace("right", "rear"))
    failed = run("convert", bag, "--out", tmp_path / "none")
    assert failed.code == 1 and "no scan has an image" in failed.err and "/robot/left/image_raw" in failed.err
    (tmp_path / "bare.yaml").write_text("cameras: {left: {model: mei, width: 4, height: 3, intrinsics: [1, 1, 1, 1]}}")
    failed = run("convert", bag, "--calibration", tmp_path / "bare.yaml", "--out", tmp_path / "bare")
    assert failed.code == 1 and "cameras.left: it has no T_camera_lidar; add" in failed.err.replace("\n", " ")
    calibration(tmp_path / "calibration.yaml")
    assert run("convert", bag, "--out", tmp_path / "good").code == 0
    failed = run("convert", bag, "--topic", "/points", "--out", tmp_path / "good")
    assert failed.code == 1 and "has a conversion with other settings (topic); give another --out" in failed.err
    with (tmp_path / "calibration.yaml").open("a") as file:
        file.write("# measured again\n")
    failed = run("convert", bag, "--out", tmp_path / "good")
    assert failed.code == 1 and re.search(r"another calibration than \S+calibration.yaml has now: .*--out", failed.err)


def test_a_bag_that_cannot_be_opened_costs_no_other(tmp_path: Path, run: Run) -> None:
    record(tmp_path / "drive", "mcap", 3)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/metadata.yaml").touch()
    command = ("convert", tmp_path / "bad", tmp_path / "drive", "--out", tmp_path / "out")
    for _ in range(2):  # again, where all is done
        done = run(*command)
        assert done.code == 1 and done.err.startswith("warning: left out: ")
        assert f"3 scans of 1 sequence converted, but: bag {tmp_path / 'bad'}" in done.err
    assert len(open_input(tmp_path / "out")) == 3
    shutil.rmtree(tmp_path / "bad")
    assert "does not exist" in run(*command).err
    # Of an unfinished conversion nothing is lost where the bag was mended.
    begun = conversion.Conversion(conversion.sources_of([tmp_path / "drive"]), tmp_path / "begun")
    list(begun.run(1))
    record(tmp_path / "bad", "mcap", 2)
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "begun/shards").iterdir()}
    assert run("convert", tmp_path / "bad", tmp_path / "drive", "--out", tmp_path / "begun").code == 0
    assert all(path.stat().st_mtime_ns == made for path, made in parts.items())
    assert len(open_input(tmp_path / "begun")) == 5


def test_a_bag_cut_short_gives_what_it_has(tmp_path: Path, run: Run) -> None:
    record(tmp_path / "drive.bag", "ros1", 200)
    whole = (tmp_path / "drive.bag").read_bytes()
    (tmp_path / "drive.bag").write_bytes(whole[: len(whole) * 6 // 10])
    assert run("convert", tmp_path / "drive.bag", "--out", tmp_path / "out").code == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert 20 < report["scans"] < 200 and "cut short" in report["problems"][0]


def test_the_documents_example_of_a_new_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    text = (Path(__file__).resolve().parent.parent / "docs/data-sets.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "rooms.py" in block)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/rooms.py").write_text(code)
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path / "modules")])
    rooms = tmp_path / "rooms"
    rooms.mkdir()
    (rooms / "rooms.txt").touch()
    for i in range(3):
        xyz = np.random.default_rng(i).normal(size=(50, 3))
        np.savez(rooms / f"{i:03d}.npz", xyz=xyz, intensity=np.zeros(50), stamp=i, label=np.full(50, i, np.uint8))
    assert run("convert", rooms, "--out", tmp_path / "out", "--processes", 1).code == 0
    data = open_input(tmp_path / "out")
    assert [frame.key for frame in data] == ["rooms/000", "rooms/001", "rooms/002"]
    assert data.label_spaces["hand"].name == "indoor" and (data[2].labels["hand"].label == 2).all()
    (rooms / "001.npz").write_bytes(b"junk")
    data = open_input(rooms)
    assert [frame.key for frame in data] == ["000", "002"]
    assert re.match(r"frame 1 of .*rooms cannot be read: ", next(iter(data.problems)))
