"""What the segmentation node says of its health in /diagnostics, and how it fits in with other nodes' files."""

import re
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rooms import box_rooms
from ros_harness import START, Graph, Robot, cloud, header, node_arguments, room
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import String

from cmp_seg_ros import resources
from cmp_seg_ros.nodes import segmentation_node
from cmp_seg_ros.ros import diagnostics, environment, qos
from cmp_seg_ros.ros.diagnostics import ERROR, OK
from cmp_seg_ros.scan import Scan

STALLING = """
import time
from cmp_seg_ros import segmenter
from cmp_seg_ros.nodes import segmentation_node
label = segmenter.Segmenter.__call__

def stall(self, scan):
    if scan.stamp == 13:
        time.sleep(600)
    return label(self, scan)

segmenter.Segmenter.__call__ = stall
segmentation_node.main()
"""


@pytest.fixture(scope="module")
def graph(tiny_bundle, tmp_path_factory):
    """One node for all tests that do not need another."""
    with Graph(tmp_path_factory.mktemp("logs"), *node_arguments(tiny_bundle)) as graph:
        yield graph


def test_a_stalled_engine_is_an_error_by_age_and_by_rate_and_does_not_hold_up_the_end(tiny_bundle, tmp_path):
    (tmp_path / "stalling.py").write_text(STALLING)
    with Graph(tmp_path / "logs", str(tmp_path / "stalling.py"), *node_arguments(tiny_bundle)[1:]) as graph:
        graph.label(cloud(room()))
        graph.until(graph.healthy, "a healthy node")
        graph.points.publish(cloud(room(), 13))
        late = r"late: no result for \d\.\d s, the last took \d+ ms; error_age is 2 s"
        graph.until(lambda: graph.warns(late, ERROR), "an error by age")
        graph.until(lambda: graph.warns(r"stuck: labelling one of the scans for \d", ERROR), "a stalled worker")

        def errs(pattern):
            graph.points.publish(cloud(room()))
            return graph.warns(pattern, ERROR)

        assert graph.set_parameter("error_age", 0.0).successful
        graph.until(lambda: errs(r"labelling 0\.0 of \d.* scans a second, fewer than error_rate_hz 0\.5"), "an error")
        assert graph.set_parameter("error_rate_hz", 0.0).successful
        graph.until(lambda: not errs("") and graph.healthy(), "no error where none is asked for")
        graph.program.process.send_signal(signal.SIGTERM)
        graph.until(lambda: "stopped while labelling one of the scans" in graph.program.err, "the end")
        assert graph.program.process.wait(10) == 0, "launch kills what takes longer"
        graph.until(lambda: graph.counts()["pending"] == "0", "the last report")
        counts = {key: int(graph.counts()[key]) for key in ("in", "out", "dropped")}
        assert counts["in"] == counts["out"] + counts["dropped"]


DRIVER = """
import sys, time
from array import array
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import PointCloud2
rclpy.init()
node = rclpy.create_node("driver")
profile = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
publisher = node.create_publisher(PointCloud2, "/points", profile)
message = deserialize_message(open(sys.argv[1], "rb").read(), PointCloud2)
while True:
    publisher.publish(message)
    time.sleep(0.1)
"""


def test_clouds_that_the_middleware_loses_are_named_with_the_remedy(tiny_bundle, tmp_path, monkeypatch):
    """A driver with best effort and the middleware's defaults, with clouds of 1 MB."""
    from rclpy.serialization import serialize_message

    (tmp_path / "driver.py").write_text(DRIVER)
    (tmp_path / "cloud").write_bytes(serialize_message(cloud(room(16 * 1400))))
    with Graph(tmp_path / "logs", *node_arguments(tiny_bundle)) as graph:
        monkeypatch.delenv(environment.variable())
        graph.start(str(tmp_path / "driver.py"), str(tmp_path / "cloud"))
        pattern = (
            r"(\d+) messages on /points were lost by the middleware, \d+ of \d+ arrived: set the profile where the "
            r"driver starts, export \w+=.*/fastdds\.xml"
        )
        graph.until(lambda: graph.warns(pattern), "a warning of lost clouds")
        assert int(graph.counts()["lost"]) > 0


def test_the_docs_name_every_parameter_and_key(graph):
    named = set(re.findall(r"`([\w.]+)`", (Path(__file__).parents[1] / "docs" / "node.md").read_text()))
    assert {p.name for p in segmentation_node.PARAMETERS} <= named
    graph.label(cloud(room()))
    graph.until(lambda: "ms.total.p50" in graph.counts(), "a report with all keys")
    stages = re.compile(r"ms\.\w+\.p\d\d")
    for key in graph.counts():
        group, _, name = key.partition(".")
        assert key in named or stages.fullmatch(key) or (group in ("dropped", "note") and name in named), key


def test_a_warning_outlives_a_report(graph):
    graph.label(cloud(Scan(room().xyz * 1000, room().intensity)))
    graph.until(lambda: graph.warns("beyond the model's field of view"), "a warning")
    before = len(graph.reports)
    graph.until(lambda: len(graph.reports) > before, "another report")
    assert graph.warns("beyond the model's field of view")


def test_strange_scans_and_intensities_are_told(calibrated, start_robot):
    graph = start_robot(Graph, *node_arguments(calibrated.path))
    rooms = []
    for found in box_rooms(range(100, 106)):
        whole = len(found.xyz) // 16 * 16
        rooms.append(Scan(found.xyz[:whole], found.intensity[:whole]))

    def info(scan, stamp):
        graph.label(cloud(scan, stamp))
        ours = lambda: [i for i in map(diagnostics.values, graph.infos) if i["stamp_ns"] == str(stamp)]  # noqa: E731
        return graph.until(ours, "scan info")[0]

    threshold = calibrated.description.familiarity.threshold
    usual = [info(room, START + i) for i, room in enumerate(rooms)]
    assert np.median([float(values["unlikeness"]) for values in usual]) < threshold
    assert "False" in {values["strange_intensity"] for values in usual}
    calm = rooms[int(np.argmin([float(values["unlikeness"]) for values in usual]))]
    noise = Scan(calm.xyz, np.random.default_rng(0).uniform(0, 200, len(calm)))
    values = info(noise, START + 10)
    assert values["strange_intensity"] == "True"
    assert float(values["intensity_unlikeness"]) > calibrated.description.intensities.threshold

    def noted():
        graph.label(cloud(noise))
        return int(graph.counts().get("note.strange_intensity", 0))

    graph.until(noted, "a note")
    graph.until(lambda: noted() and graph.healthy(), "health in spite of it")
    strange = cloud(Scan(calm.xyz * 3, calm.intensity))
    warned = "unlike the scans that the model was trained on .unlikeness"
    graph.until(lambda: graph.label(strange) and graph.warns(warned), "a warning")
    graph.until(lambda: graph.label(cloud(calm)) and graph.healthy(), "health again")


def test_a_camera_that_stops_is_warned_of(graph):
    images = graph.publisher(Image, "/image")
    graph.label(cloud(room()))
    graph.until(graph.healthy, "health without a camera")
    images.publish(Image(header=header(START, "camera")))

    def warned():
        graph.label(cloud(room()))
        return graph.warns(r"nothing came on /image for 3 s, though it has a publisher")

    graph.until(warned, "a warning of the camera")
    graph.node.destroy_publisher(images)
    graph.until(lambda: graph.label(cloud(room())) and graph.warns(r"nobody publishes /image"), "another reason")


def test_an_overlay_without_a_camera_is_warned_of(tiny_bundle, tmp_path):
    with Graph(tmp_path, *node_arguments(tiny_bundle)) as graph:
        graph.subscribe(Image, "/segmentation_node/overlay")
        graph.until(lambda: graph.label(cloud(room())) and graph.warns(r"nobody publishes /image"), "a warning")


def test_idle_on_purpose_is_healthy(tiny_bundle, robot):
    robot.name = "/segmentation_node"
    robot.start(*node_arguments(tiny_bundle, only_when_subscribed=True))
    points = robot.publisher(PointCloud2, "/points")

    def idle():
        points.publish(cloud(room()))
        return int(robot.counts().get("dropped.unsubscribed", 0)) > 2

    robot.until(idle, "scans that nobody wants")
    assert (robot.health.level, robot.health.message) == (OK, "idle, since nobody subscribes (only_when_subscribed)")
    labelled = robot.subscribe(PointCloud2, "/segmentation_node/labelled_points")
    robot.until(lambda: points.publish(cloud(room())) or labelled, "labels once somebody subscribes")


def test_a_cloud_that_was_published_before_the_node_started_is_labelled(tiny_bundle, robot):
    robot.name = "/segmentation_node"
    latched = robot.node.create_publisher(PointCloud2, "/points", qos.LATCHED)
    latched.publish(cloud(room(), START + 7))
    labelled = robot.subscribe(PointCloud2, "/segmentation_node/labelled_points")
    robot.start(*node_arguments(tiny_bundle))
    robot.until(lambda: labelled, "labels of the latched cloud")
    assert labelled[0].header == header(START + 7)
    # A driver of the usual kind takes its place.
    robot.node.destroy_publisher(latched)
    points = robot.publisher(PointCloud2, "/points")
    robot.until(lambda: points.publish(cloud(room(), START + 8)) or len(labelled) > 1, "labels of another cloud")
    robot.until(lambda: robot.counts().get("durability") == "volatile", "a subscription that suits both")


SHARED_FILE = {
    "/**": {"ros__parameters": {"robot": {"name": "rover"}, "wheel_radius": 0.2, "use_sim_time": False}},
    "/rear/**": {"ros__parameters": {"error_age": 30.0}},
    "rear": {"seg": {"ros__parameters": {"modle": "x", "target_rate": 3.0, "xyzzy": True}}},
}


def test_nodes_in_namespaces_with_files_of_the_whole_robot(tiny_bundle, tmp_path):
    """Unknown parameters of all nodes are passed over, mistyped ones of this node named; qos_overrides work."""
    overrides = {"qos_overrides": {"/rear/points": {"subscription": {"reliability": "best_effort", "depth": 3}}}}
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(SHARED_FILE | {"/rear/seg": {"ros__parameters": overrides}}))
    files = [resources.resource("config/segmentation_node.yaml"), tmp_path / "robot.yaml"]
    files = [part for file in files for part in ("--params-file", str(file))]
    rear = ("-r", "__ns:=/rear", "-r", "__node:=seg")
    front = ("-r", "__ns:=/front", "-r", "__node:=seg", "-p", "output_profile:=hydra")
    with Robot(tmp_path / "logs") as robot:
        arguments = node_arguments(tiny_bundle)
        programs = [robot.start(*arguments[:2], *files, *arguments[2:], *names) for names in (rear, front)]
        clouds = robot.subscribe(PointCloud2, "/front/seg/labelled_points")
        labelled = robot.subscribe(PointCloud2, "/rear/seg/labelled_points")
        spaces = robot.subscribe(String, "/rear/seg/label_space", qos.LATCHED)
        driver = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        sent = [robot.publisher(PointCloud2, f"/{side}/points", driver) for side in ("rear", "front")]

        def both():
            for publisher, side in zip(sent, ("rear", "front"), strict=True):
                message = cloud(room())
                message.header.frame_id = f"{side}_lidar"
                publisher.publish(message)
            return labelled and clouds and spaces

        robot.until(both, "labels of both")
        statuses = lambda: {s.name: s for array in robot.reports for s in array.status if s.hardware_id}  # noqa: E731
        named = lambda: {name: status.hardware_id for name, status in statuses().items()}  # noqa: E731
        robot.until(lambda: both() and len(named()) == 2, "reports of both")
        assert named() == {"/rear/seg: scans": "rear_lidar", "/front/seg: scans": "front_lidar"}
        assert diagnostics.values(statuses()["/rear/seg: scans"])["reliability"] == "best_effort"
        assert "asking for less" not in programs[0].err, "it was so from the start"
        assert "label" in {field.name for field in clouds[-1].fields} and clouds[-1].point_step == 20, "profile hydra"
        for name, remedy in {"modle": "model", "target_rate": "target_rate_hz"}.items():
            assert f"there is no parameter {name}, and it is ignored; did you mean {remedy}?" in programs[0].err
        assert "there is no parameter xyzzy, and it is ignored; known: model, engine" in programs[0].err
        assert not any(name in program.err for program in programs for name in ("wheel_radius", "robot.name"))
        assert "there is no parameter" not in programs[1].err
        analyzer = yaml.safe_load(resources.resource("config/diagnostics_aggregator.yaml").read_text())
        group = analyzer["analyzers"]["ros__parameters"]["segmentation"]
        assert all(part in name for part in group["contains"] for name in named()), "the aggregator finds both"
