"""Bags: every storage, topics that fit, bags cut short, and the labelled bag."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bags import CLOUD, SCANS, STORAGES, bag_file, bag_path, columns, scans, write_bag
from rosbags.highlevel import AnyReader
from test_field_bags import read, refusal

from cmp_seg_ros.datasets import open_input
from cmp_seg_ros.datasets.bag import Bag
from cmp_seg_ros.datasets.labelled_bag import LabelledBagWriter
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import point_cloud2
from cmp_seg_ros.messages.transforms import matrix
from cmp_seg_ros.scan import Labels

SPACE = LabelSpace.load("structural6")


@pytest.mark.parametrize("storage", STORAGES)
def test_every_storage_gives_the_same_scans(tmp_path: Path, storage: str) -> None:
    path = write_bag(bag_path(tmp_path, storage), storage, {"/points": scans()})
    reader = open_input(path)
    samples = list(reader)
    assert reader.count == SCANS and not reader.problems
    assert [sample.key for sample in samples] == [f"{i:06d}" for i in range(SCANS)]
    for i, sample in enumerate(samples):
        np.testing.assert_array_equal(sample.scan.xyz, np.column_stack([columns(i)[axis] for axis in "xyz"]))
        np.testing.assert_array_equal(sample.scan.intensity, i)
        assert (sample.scan.stamp, sample.scan.frame_id) == ((1000 + i) * 10**9, "lidar")


@pytest.mark.parametrize("storage", STORAGES)
def test_a_single_file_by_any_name(tmp_path: Path, storage: str) -> None:
    path = write_bag(bag_path(tmp_path, storage), storage, {"/points": scans(4)})
    shutil.copy(bag_file(path), tmp_path / "recording")
    assert read(tmp_path / "recording") == [0, 1, 2, 3]


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_folder_without_its_metadata(tmp_path: Path, storage: str) -> None:
    path = write_bag(tmp_path / "scans", storage, {"/points": scans(4)})
    (path / "metadata.yaml").unlink()
    assert read(path) == [0, 1, 2, 3]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_bag_cut_short_gives_what_it_has_and_says_so(tmp_path: Path, storage: str, share: float) -> None:
    # Several chunks of a megabyte, so that some are whole.
    clouds = [{name: np.tile(values, 60) for name, values in columns(i).items()} for i in range(SCANS)]
    path = write_bag(bag_path(tmp_path, storage), storage, {"/points": clouds})
    file = bag_file(path)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    found = read(path, problems=f"bag {path} is damaged or cut short")
    assert 0.7 * share * SCANS - 2 <= len(found) < SCANS and found == list(range(len(found)))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("size", [0, 10, 100, 4000])
def test_a_bag_with_hardly_anything_left_is_one_clear_error(tmp_path: Path, storage: str, size: int) -> None:
    path = write_bag(bag_path(tmp_path, storage), storage, {"/points": scans(3)})
    file = bag_file(path)
    file.write_bytes(file.read_bytes()[:size])
    said = refusal(path)
    assert path.name in said
    if storage != "ros1":
        assert f"metadata.yaml promises /points ({CLOUD}, 3)" in said
        assert "damaged or cut short" in said and "copy it again" in said


def test_a_bag_cut_before_its_first_cloud_says_what_was_in_it(tmp_path: Path) -> None:
    large = [{"structural6": np.zeros(3_000_000, np.uint8)} for _ in range(2)]
    path = write_bag(tmp_path / "scans", "mcap", {"/truth/points": large, "/points": scans(1)})
    file = bag_file(path)
    file.write_bytes(file.read_bytes()[:3_002_000])
    said = refusal(path)
    assert "damaged or cut short" in said and "record the sensor's" not in said
    assert f"promises /truth/points ({CLOUD}, 2), /points ({CLOUD}, 1); messages of /truth/points (1) alone" in said
    (path / "metadata.yaml").write_text("[")
    assert "damaged or cut short" in refusal(path)


def test_metadata_that_promises_more(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "scans", "sqlite3", {"/points": scans(3)})
    text = (path / "metadata.yaml").read_text()
    (path / "metadata.yaml").write_text(text.replace("message_count: 3", "message_count: 5"))
    assert read(path, problems="2 are missing") == [0, 1, 2]


def test_topics(tmp_path: Path) -> None:
    truth = [{"structural6": np.zeros(400, np.uint8)} for _ in range(3)]
    one = write_bag(tmp_path / "one", "mcap", {"/lidar/points": scans(3), "/truth/points": truth})
    assert open_input(one).topic == "/lidar/points"
    assert open_input(one, "lidar/points").topic == "/lidar/points"
    assert refusal(one, "/wrong").endswith("is not in the bag; these would do: /lidar/points (3 messages)")
    assert "no clouds with x, y and z; these would do: /lidar/points" in refusal(one, "/truth/points")
    two = write_bag(tmp_path / "two", "mcap", {"/front": scans(3), "/rear": scans(2)})
    assert "--topic: /front (3 messages), /rear (2 messages)" in refusal(two)
    assert read(two, "/rear") == [0, 1]
    neither = write_bag(tmp_path / "neither", "mcap", {"/truth/points": truth})
    assert "no PointCloud2 with x, y and z; its topics are /truth/points" in refusal(neither)


def test_packets_need_the_driver(shared_data: Path) -> None:
    for name, topic in (("nebula_xt32", "/pandar_packets"), ("nebula_vlp16", "/velodyne_packets")):
        said = refusal(shared_data / "real" / name / "bag")
        assert f"{topic} holds raw packets. Play the bag into the sensor's driver" in said


def test_stamps_that_are_zero_or_run_backwards(tmp_path: Path) -> None:
    stamps = [5 * 10**9, 6 * 10**9, 4 * 10**9, 0]
    reader = open_input(write_bag(tmp_path / "scans", "mcap", {"/points": scans(4)}, stamps))
    assert len(list(reader)) == 4
    assert not reader.problems  # nothing is lost
    backwards, zero = reader.notes
    assert "backwards at scan 000002" in backwards and "2.000 s" in backwards
    assert "scan 000003" in zero and "stamp zero" in zero


@pytest.mark.parametrize("storage", STORAGES)
def test_labelled_bag(tmp_path: Path, storage: str) -> None:
    path = write_bag(bag_path(tmp_path, storage), storage, {"/points": scans(3)})
    labels = Labels((np.arange(400) % 6).astype(np.uint8), np.linspace(0, 1, 400, dtype=np.float32))
    with LabelledBagWriter(tmp_path / "labelled", SPACE) as bag:
        for sample in open_input(path):
            bag.write_scan(sample.message, labels)
    reader = open_input(tmp_path / "labelled")
    for i, sample in enumerate(reader):
        np.testing.assert_array_equal(sample.scan.intensity, i)
        assert (sample.scan.stamp, sample.scan.frame_id) == ((1000 + i) * 10**9, "lidar")
        assert [f.name for f in sample.message.fields] == ["x", "y", "z", "intensity", "confidence", "rgb", "label"]
        np.testing.assert_array_equal(point_cloud2.decode_labels(sample.message).label, labels.label)
    assert reader.count == 3
    # The label space is there for a reader that comes late.
    with AnyReader([tmp_path / "labelled"]) as raw:
        (connection,) = [c for c in raw.connections if c.topic.endswith("/label_space")]
        assert connection.ext.offered_qos_profiles[0].durability.name == "TRANSIENT_LOCAL"
        ((_, _, data),) = raw.messages([connection])
        text = raw.deserialize(data, connection.msgtype).data
    (tmp_path / "space.yaml").write_text(text)
    assert LabelSpace.load(tmp_path / "space.yaml") == SPACE


def test_a_labelled_bag_has_the_poses_that_are_known(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "scans", "mcap", {"/points": scans(2)})
    labels = Labels(np.zeros(400, np.uint8), np.ones(400, np.float32))
    T_base_lidar, T_world_lidar = np.eye(4), np.eye(4)
    T_base_lidar[:3, 3], T_world_lidar[:3, 3] = (0.1, 0, 0.5), (3, 4, 0.5)
    with LabelledBagWriter(tmp_path / "labelled", SPACE) as bag:
        for sample in open_input(path):
            bag.write_scan(sample.message, labels, T_base_lidar, T_world_lidar)
    found = [(m.topic, m.message.transforms) for m in Bag(tmp_path / "labelled").messages(["/tf", "/tf_static"])]
    assert [topic for topic, _ in found] == ["/tf_static", "/tf", "/tf"]
    frames = [(t.header.frame_id, t.child_frame_id) for _, (t,) in found]
    assert frames == [("base_link", "lidar"), ("odom", "base_link"), ("odom", "base_link")]
    mount, move, _ = (matrix(t.transform) for _, (t,) in found)
    np.testing.assert_allclose(move @ mount, T_world_lidar, atol=1e-12)


def test_scans_without_a_stamp_are_written_one_after_the_other(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 3)))
    labels = Labels(np.zeros(4, np.uint8), np.ones(4, np.float32))
    with LabelledBagWriter(tmp_path / "labelled", SPACE) as bag:
        for _ in range(3):
            for sample in open_input(tmp_path / "a.npy"):
                bag.write_scan(sample.message, labels)
    times = [message.time for message in Bag(tmp_path / "labelled").messages(["/segmentation_node/labelled_points"])]
    assert times == [100_000_000, 200_000_000, 300_000_000]


def test_nothing_is_replaced_by_a_labelled_bag(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match=r"mine exists; give another --out"):
        LabelledBagWriter(tmp_path / "mine", SPACE)


def test_duck_typed_messages_are_enough(tmp_path: Path) -> None:
    header = SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=2), frame_id="")
    cloud = point_cloud2.encode(columns(0), (4, 100)).message(header, SimpleNamespace, SimpleNamespace)
    with LabelledBagWriter(tmp_path / "labelled", SPACE) as bag:
        bag.write_scan(cloud, Labels(np.zeros(400, np.uint8), np.ones(400, np.float32)))
    (sample,) = open_input(tmp_path / "labelled")
    assert (sample.scan.frame_id, sample.scan.shape, sample.scan.stamp) == ("lidar", (4, 100), 1_000_000_002)
