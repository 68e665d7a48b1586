"""Bags as the field sends them: odd in what reading does not need, or not read and said why. One test a kind."""

import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zstandard
from bags import CLOUD, bag_file, bag_path, cloud, columns, definition, mcap, message, scans, write_bag
from rosbags.rosbag2 import CompressionMode
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from cmp_seg_ros.datasets import livox, open_input
from cmp_seg_ros.datasets.bag import Bag
from cmp_seg_ros.datasets.labelled_bag import LabelledBagWriter
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import cdr, point_cloud2
from cmp_seg_ros.scan import Labels

LIVOX = "livox_ros_driver2/msg/CustomMsg"


def read(path: Path, topic: str = "", notes: str = "", problems: str = "") -> list[int]:
    """The numbers that stand in the clouds' intensity; what is noted must be what is expected, and nothing else."""
    before = listing(path)
    data = open_input(path, topic)
    found = [int(frame.scan.intensity[0]) for frame in data]
    assert notes in "; ".join(data.notes) and bool(data.notes) == bool(notes), list(data.notes)
    assert problems in "; ".join(data.problems) and bool(data.problems) == bool(problems), list(data.problems)
    assert listing(path) == before
    return found


def listing(path: Path) -> list[tuple[str, int, int]]:
    """All files around an input: nothing may be made beside it, or change."""
    return sorted((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in path.parent.rglob("*"))


def refusal(path: Path, topic: str = "") -> str:
    with pytest.raises(UserError) as error:
        list(open_input(path, topic))
    assert "\n" not in str(error.value)
    return str(error.value)


METADATA = [  # what the metadata say instead
    (("topic_metadata", "offered_qos_profiles"), [{"history": 3, "depth": 1, "reliability": "odd"}]),
    (("topic_metadata", "offered_qos_profiles"), "nonsense: [x"),
    (("topic_metadata", "serialization_format"), ""),
    (("topic_metadata", "type"), "sensor_msgs/msg/Other"),
    (("topic_metadata", "type_description_hash"), "RIHS01_0"),
    (("version",), 99),
    (("storage_identifier",), "rosbag_v2"),
    (("compression_mode",), "MESSAGE"),
    (("duration",), None),
    (("topics_with_message_count",), None),
    (("message_count",), 0),
]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize(("entry", "value"), METADATA)
def test_metadata_that_disagree_in_what_reading_does_not_need(
    tmp_path: Path, storage: str, entry: tuple[str, ...], value: Any
) -> None:
    path = write_bag(tmp_path / "scans", storage, {"/points": scans(4)})
    metadata = yaml.safe_load((path / "metadata.yaml").read_text())
    inside = metadata["rosbag2_bagfile_information"]
    if len(entry) > 1:
        inside = inside["topics_with_message_count"][0][entry[0]]
    inside[entry[-1]] = value
    (path / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    assert read(path) == [0, 1, 2, 3]


def test_topics_are_taken_from_the_files_where_the_metadata_name_others(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "scans", "mcap", {"/points": scans(4)})
    text = (path / "metadata.yaml").read_text()
    (path / "metadata.yaml").write_text(text.replace("name: /points", "name: /other"))
    assert read(path) == [0, 1, 2, 3]
    (path / "metadata.yaml").write_text(text.replace("- scans.mcap", "- gone.mcap"))
    assert read(path, notes="gone.mcap is not there; all messages that its metadata") == [0, 1, 2, 3]
    (path / "metadata.yaml").write_text("[")
    assert read(path, notes="metadata.yaml cannot be read and was ignored") == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["run#3", "was ist das?", "100%25", "a b&mode=rwc", "größe"])
def test_any_name_of_a_folder_and_a_file(tmp_path: Path, name: str) -> None:
    path = write_bag(tmp_path / "scans", "sqlite3", {"/points": scans(4)})
    path = path.rename(tmp_path / name)
    assert read(path) == [0, 1, 2, 3]
    file = shutil.move(path / "scans.db3", tmp_path / f"{name}.db3")
    assert read(Path(file)) == [0, 1, 2, 3]


def test_empty_clouds_are_counted_and_passed_over(tmp_path: Path) -> None:
    nothing = replace(cloud(), height=0, width=0, row_step=0, fields=(), data=point_cloud2.array("B"))
    without_points = replace(cloud(), width=0, row_step=0, data=point_cloud2.array("B"))
    with mcap(tmp_path / "a.mcap") as add:
        add("/points", CLOUD, [message(c) for c in (nothing, nothing, cloud(0), without_points, cloud(1))])
    assert read(tmp_path / "a.mcap", notes="scan 000000 on /points of") == [0, 1]
    data = open_input(tmp_path / "a.mcap")
    assert [frame.key for frame in data] == ["000002", "000004"]
    assert next(iter(data.notes)).endswith("is empty: it has no points (and 2 more like it)")
    with mcap(tmp_path / "b.mcap") as add:
        add("/points", CLOUD, [message(nothing)])
    assert "the clouds on /points are empty" in refusal(tmp_path / "b.mcap")


SERVICE = "example_interfaces/srv/AddTwoInts_Event"
OTHERS = {  # topics beside the clouds: type, encoding, and what their schema says
    "/service/_service_event": (
        SERVICE,
        "cdr",
        ("ros2msg", b"service_msgs/ServiceEventInfo info\nWhatever[] request\n"),
    ),
    "/json": ("foxglove.Log", "json", ("jsonschema", b"{}")),
    "/protobuf": ("foxglove.Grid", "protobuf", ("protobuf", b"\1\2\3")),
    "/idl": ("a/msg/B", "cdr", ("ros2idl", b"module { this is no IDL")),
    "/schemaless": ("", "json", ("", b"")),
}


@pytest.mark.parametrize("topic", OTHERS)
def test_the_schemas_of_other_topics_do_not_matter(tmp_path: Path, topic: str) -> None:
    type_, encoding, schema = OTHERS[topic]
    with mcap(tmp_path / "a.mcap") as add:
        add(topic, type_, [b"{}"], encoding, schema)
        add("/points", CLOUD, [message(cloud(i)) for i in range(3)])
    assert read(tmp_path / "a.mcap") == [0, 1, 2]
    assert f"topic {topic} of" in refusal(tmp_path / "a.mcap", topic)


@pytest.mark.parametrize("profile", ["", "ros2", "anything"])
def test_any_profile(tmp_path: Path, profile: str) -> None:
    with mcap(tmp_path / "a.mcap", profile) as add:
        add("/points", CLOUD, [message(cloud(i)) for i in range(3)])
    assert read(tmp_path / "a.mcap") == [0, 1, 2]


@pytest.mark.parametrize("indexed", [True, False])
def test_ros1_channels_of_an_mcap(tmp_path: Path, indexed: bool) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types
    time = types["builtin_interfaces/msg/Time"](sec=1000, nanosec=7)
    header = types["std_msgs/msg/Header"](seq=3, stamp=time, frame_id="lidar")
    clouds = [cloud(i).message(header, types[CLOUD], types["sensor_msgs/msg/PointField"]) for i in range(3)]
    schema = ("ros1msg", definition(CLOUD, ros1=True).encode())
    options = {} if indexed else {"use_statistics": False, "repeat_channels": False, "repeat_schemas": False}
    with mcap(tmp_path / "a.mcap", "ros1", **options) as add:
        add(
            "/points",
            "sensor_msgs/PointCloud2",
            [bytes(store.serialize_ros1(c, CLOUD)) for c in clouds],
            "ros1",
            schema,
        )
    assert read(tmp_path / "a.mcap") == [0, 1, 2]
    (first, *_) = open_input(tmp_path / "a.mcap")
    assert (first.scan.stamp, first.scan.frame_id) == (1000 * 10**9 + 7, "lidar")
    sent = next(iter(Bag(tmp_path / "a.mcap").serialised(["/points"])))  # as the player needs it
    assert point_cloud2.decode(cdr.deserialize(sent.data, CLOUD)).frame_id == "lidar"


def test_what_is_not_supported_is_named_and_not_called_damage(tmp_path: Path) -> None:
    with mcap(tmp_path / "a.mcap") as add:
        add("/LIDAR_TOP", "foxglove.PointCloud", [b"\1\2\3"], "protobuf", ("protobuf", b"\1"))
    said = refusal(tmp_path / "a.mcap")
    assert "/LIDAR_TOP (foxglove.PointCloud as protobuf, 1)" in said
    assert "clouds as on /LIDAR_TOP are not supported" in said and "damage" not in said
    with mcap(tmp_path / "b.mcap") as add:
        add("/packets", "velodyne_msgs/msg/VelodyneScan", [bytes(9)], schema=("ros2msg", b"uint8[] data"))
    said = refusal(tmp_path / "b.mcap")
    assert "holds raw packets" in said and "driver (velodyne_pointcloud)" in said


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"row_step": 0}, "row_step of the cloud is 0"),
        ({"row_step": 12345}, "row_step of the cloud is 12345"),
        ({"height": 4, "width": 100, "row_step": 6400}, "row_step of the cloud is 6400"),  # of the whole cloud
        ({"fields": lambda f: (*f[:3], replace(f[3], count=400))}, "count of field 'intensity' is 400"),
        ({"fields": lambda f: tuple(replace(field, count=400) for field in f)}, "count of field 'x' is 400"),
    ],
)
def test_redundant_fields_that_are_wrong_are_noted_once(tmp_path: Path, changes: dict, says: str) -> None:
    changes = {name: value(cloud().fields) if callable(value) else value for name, value in changes.items()}
    with mcap(tmp_path / "a.mcap") as add:
        add("/points", CLOUD, [message(replace(cloud(i), **changes)) for i in range(3)])
    assert read(tmp_path / "a.mcap", notes=says) == [0, 1, 2]
    data = open_input(tmp_path / "a.mcap")
    for i, frame in enumerate(data):
        np.testing.assert_array_equal(frame.scan.xyz[:, 0], columns(i)["x"])
    assert all("(and 2 more like it)" in note for note in data.notes)


@pytest.mark.parametrize("field", [{"offset": 20}, {"offset": 14}, {"datatype": 99}])
def test_an_intensity_that_cannot_be_read_is_absent(tmp_path: Path, field: dict) -> None:
    fields = (*cloud().fields[:3], replace(cloud().fields[3], **field))
    with mcap(tmp_path / "a.mcap") as add:
        add("/points", CLOUD, [message(replace(cloud(), fields=fields))])
    data = open_input(tmp_path / "a.mcap")
    (frame,) = data
    assert frame.scan.intensity is None and not data.problems
    assert "field 'intensity' of the cloud is passed over" in "; ".join(data.notes)
    np.testing.assert_array_equal(frame.scan.xyz[:, 0], columns(0)["x"])


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_compressed_messages_without_metadata(tmp_path: Path, storage: str) -> None:
    path = write_bag(tmp_path / "scans", storage, {"/points": scans(3)}, compression=CompressionMode.MESSAGE)
    file = bag_file(path)
    alone = file.rename(tmp_path / f"alone{file.suffix}")
    assert read(alone) == [0, 1, 2]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3", "ros1"])
def test_a_file_that_was_packed_by_hand(tmp_path: Path, storage: str) -> None:
    path = write_bag(bag_path(tmp_path, storage), storage, {"/points": scans(60)})
    file = bag_file(path)
    packed = zstandard.compress(file.read_bytes())
    alone = tmp_path / f"alone{file.suffix}.zstd"
    alone.write_bytes(packed)
    assert read(alone) == list(range(60))
    if storage == "ros1":  # one chunk
        alone.write_bytes(packed[: len(packed) // 2])
        assert "damaged or cut short" in refusal(alone)
    else:
        alone.write_bytes(packed[: len(packed) * 2 // 3])
        assert read(alone, problems="damaged or cut short")[:10] == list(range(10))
    alone.write_bytes(packed[:20])
    assert "is not a .zstd file" in refusal(alone)


def test_a_bag_that_was_unpacked_by_hand(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "scans", "sqlite3", {"/points": scans(3)}, compression=CompressionMode.FILE)
    assert read(path) == [0, 1, 2]
    packed = bag_file(path)
    packed.with_suffix("").write_bytes(zstandard.decompress(packed.read_bytes(), 1 << 24))
    assert read(path) == [0, 1, 2]  # both are there: not twice
    packed.unlink()
    assert read(path, notes="it has scans.db3 where its metadata.yaml says scans.db3.zstd") == [0, 1, 2]
    (path / "metadata.yaml").unlink()
    assert read(path / "scans.db3") == [0, 1, 2]


def test_a_reason_reaches_the_message(tmp_path: Path) -> None:
    with mcap(tmp_path / "a.mcap") as add:
        add("/points", CLOUD, [b"\0\1\0\0" + bytes(7), b"\x28\xb5\x2f\xfd nonsense"])
    said = refusal(tmp_path / "a.mcap")
    assert "no message on /points can be decoded (" in said and "record the sensor's" not in said


def test_topics_recorded_without_a_slash(tmp_path: Path) -> None:
    with mcap(tmp_path / "a.mcap") as add:
        add("front", CLOUD, [message(cloud(1))])
        add("rear/points", CLOUD, [message(cloud(2))])
    assert "front (1 messages), rear/points (1 messages)" in refusal(tmp_path / "a.mcap")
    assert read(tmp_path / "a.mcap", "front") == read(tmp_path / "a.mcap", "/front") == [1]
    assert read(tmp_path / "a.mcap", "/rear/points") == read(tmp_path / "a.mcap", "rear/points") == [2]


def test_a_log_that_was_never_merged(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "scans", "sqlite3", {"/points": scans(4)})
    recorder = sqlite3.connect(path / "scans.db3")
    recorder.execute("PRAGMA journal_mode=WAL")
    recorder.execute("DELETE FROM messages WHERE id = 1")
    recorder.commit()
    killed = tmp_path / "killed"
    shutil.copytree(path, killed)
    recorder.close()
    assert (killed / "scans.db3-wal").stat().st_size
    text = (killed / "metadata.yaml").read_text()
    (killed / "metadata.yaml").write_text(text.replace("message_count: 4", "message_count: 3"))
    assert read(killed, notes="write-ahead log was never merged") == [1, 2, 3]


def test_a_recorder_that_was_killed_after_the_metadata_were_written(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "scans", "mcap", {"/points": scans(4)})
    file = bag_file(path)
    content = file.read_bytes()
    file.write_bytes(content[: content.index(b"\x0f\x04\0\0\0\0\0\0\0")])  # before the end of the data
    assert read(path, notes="it was never closed") == [0, 1, 2, 3]
    (path / "metadata.yaml").unlink()
    assert read(file, notes="all its records are whole") == [0, 1, 2, 3]
    file.write_bytes(file.read_bytes()[:-5000])
    assert read(file, problems="damaged or cut short") == [0, 1, 2]


def test_what_a_folder_holds_besides_is_said(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "scans", "sqlite3", {"/points": scans(2)})
    shutil.copy(bag_file(path), path / "later_1.db3")
    assert read(path, notes="later_1.db3, which its metadata.yaml does not list") == [0, 1]


def test_a_damaged_page_costs_its_message_alone(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "scans", "sqlite3", {"/points": scans(3)})
    file = bag_file(path)
    content = bytearray(file.read_bytes())
    page = content.index(bytes(cloud(1).data)[:64]) // 4096 * 4096
    content[page : page + 4096] = bytes(4096)
    file.write_bytes(content)
    assert read(path, problems="damaged or cut short") == [0, 2]


def test_clouds_without_coordinates_are_passed_over(tmp_path: Path) -> None:
    odd = {name: values for name, values in columns(0).items() if name not in "xyz"}
    path = write_bag(tmp_path / "scans", "mcap", {"/points": [odd, *scans(2), odd, columns(2)]})
    data = open_input(path)
    assert [frame.key for frame in data] == ["000001", "000002", "000004"]
    (problem,) = data.problems
    assert "scan 000000 on /points" in problem and "no field x, y, z" in problem and "1 more like it" in problem
    alone = write_bag(tmp_path / "alone", "mcap", {"/points": [odd]})
    assert "/points have the fields intensity" in refusal(alone)


def test_a_stamp_before_1970_is_kept_in_a_labelled_bag(tmp_path: Path) -> None:
    labels = Labels(np.zeros(400, np.uint8), np.ones(400, np.float32))
    with LabelledBagWriter(tmp_path / "bag", LabelSpace.load("structural6")) as bag:
        bag.write_scan(cdr.deserialize(message(cloud(), -5 * 10**9), CLOUD), labels)
    [written] = Bag(tmp_path / "bag").messages(["/segmentation_node/labelled_points"])
    assert point_cloud2.stamp_ns(written.message.header) == -5 * 10**9


def livox_message(store, number: int, stamp: int = 10**12):
    point = store.types["livox_ros_driver2/msg/CustomPoint"]
    extra = {"extra": 1.5} if "extra" in point.__dataclass_fields__ else {}
    points = [
        point(offset_time=1000 * i, x=i + 0.5, y=-1.0, z=2.0, reflectivity=number, tag=16, line=i % 4, **extra)
        for i in range(30)
    ]
    header = store.types["std_msgs/msg/Header"](
        stamp=store.types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=0), frame_id="livox_frame"
    )
    return store.types[LIVOX](
        header=header, timebase=2 * 10**12, point_num=30, lidar_id=1, rsvd=np.zeros(3, np.uint8), points=points
    )


@pytest.mark.parametrize("form", ["defined", "bare", "own fields"])
def test_livox(tmp_path: Path, form: str) -> None:
    text = livox.DEFINITIONS[LIVOX] + ("float32 extra\n" if form == "own fields" else "")
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg(text, LIVOX))
    data = [bytes(store.serialize_cdr(livox_message(store, i, 0 if i == 2 else 10**12), LIVOX)) for i in range(3)]
    with mcap(tmp_path / "a.mcap") as add:
        add("/livox/lidar", LIVOX, data, schema=("ros2msg", b"" if form == "bare" else text.encode()))
    assert read(tmp_path / "a.mcap") == [0, 1, 2]
    first, _, third = open_input(tmp_path / "a.mcap")
    assert (first.scan.stamp, third.scan.stamp, first.scan.frame_id) == (10**12, 2 * 10**12, "livox_frame")
    np.testing.assert_array_equal(first.scan.xyz, [[i + 0.5, -1, 2] for i in range(30)])
    np.testing.assert_allclose(first.scan.time, np.arange(30) * 1e-6)
    fields = point_cloud2.decode_fields(first.message, "line", "tag")
    np.testing.assert_array_equal(fields["line"], np.arange(30) % 4)
    assert fields["tag"].dtype == np.uint8
    assert ("extra" in [field.name for field in first.message.fields]) == (form == "own fields")
    # A cloud beside it, as SLAM publishes, goes first: it needs nobody to choose.
    with mcap(tmp_path / "b.mcap") as add:
        add("/livox/lidar", LIVOX, data, schema=("ros2msg", text.encode()))
        add("/cloud_registered", CLOUD, [message(cloud())])
    assert open_input(tmp_path / "b.mcap").topic == "/cloud_registered"
    assert open_input(tmp_path / "b.mcap", "/livox/lidar")[1].scan.intensity[0] == 1
