"""The segmentation node as a process of its own, over DDS."""

import signal
from array import array

import numpy as np
import pytest
import yaml
from rcl_interfaces.srv import DescribeParameters
from ros_harness import SECOND, START, Graph, cloud, header, node_arguments, room
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from cmp_seg_ros.geometry.calibration import Calibration
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import point_cloud2
from cmp_seg_ros.messages.images import encode, to_rgb
from cmp_seg_ros.nodes import segmentation_node
from cmp_seg_ros.ros import diagnostics, qos
from cmp_seg_ros.scan import UNLABELLED, Scan

TILT = np.radians(25.0)
T_BASE_LIDAR = [[1, 0, 0, 0], [0, np.cos(TILT), -np.sin(TILT), 0], [0, np.sin(TILT), np.cos(TILT), 1], [0, 0, 0, 1]]
T_CAMERA_LIDAR = [[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
CALIBRATION = {
    "lidars": {"os1": {"T_base_lidar": T_BASE_LIDAR, "intensity_mean": 50.0, "intensity_std": 20.0}},
    "cameras": {
        "front": {
            "model": "pinhole",
            "intrinsics": [200, 200, 160, 120],
            "width": 320,
            "height": 240,
            "T_camera_lidar": T_CAMERA_LIDAR,
        }
    },
}


@pytest.fixture(scope="module")
def calibration_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("calibration") / "calibration.yaml"
    Calibration.model_validate(CALIBRATION).save(path)
    return path


@pytest.fixture(scope="module")
def graph(tiny_bundle, calibration_file, tmp_path_factory):
    """One calibrated node for all tests that do not need another."""
    arguments = node_arguments(tiny_bundle, calibration_file=calibration_file)
    with Graph(tmp_path_factory.mktemp("logs"), *arguments) as graph:
        yield graph


def offline(bundle, scan: Scan, voxel_size: float = 0.1, T_base_lidar=T_BASE_LIDAR):
    from cmp_seg_ros.segmenter import Segmenter

    segmenter = Segmenter.from_bundle(
        bundle, "reference", np.array(T_base_lidar), intensity_mean=50.0, intensity_std=20.0, probabilities=True
    )
    segmenter.voxel_size = voxel_size
    return segmenter(scan)


def test_labels_are_those_of_the_segmenter(graph, tiny_bundle):
    scan = room(seed=1)
    message = cloud(scan)
    out = graph.label(message)
    expected = offline(tiny_bundle, scan)
    got = point_cloud2.decode_labels(out)
    np.testing.assert_array_equal(got.label, expected.label)
    np.testing.assert_allclose(got.confidence, expected.confidence, atol=1e-6)
    assert len(set(got.label)) > 2, "a test that every labelling passes proves nothing"
    assert out.header == message.header
    assert (out.height, out.width, out.point_step) == (16, 128, 60)
    given = point_cloud2.decode_fields(message)
    kept = point_cloud2.decode_fields(out, *given)
    assert all(np.array_equal(kept[name], given[name]) for name in given)


def test_real_scan(graph, tiny_bundle, shared_data):
    from cmp_seg_ros.datasets.pcd import DataSet

    scan = next(iter(DataSet(shared_data / "real" / "nebula_vlp16" / "scan.pcd"))).scan
    got = point_cloud2.decode_labels(graph.label(cloud(scan)))
    expected = offline(tiny_bundle, scan)
    # The rotation of all points in one product is rounded differently from machine to machine, never by much.
    assert (got.label == expected.label).mean() > 0.999


def test_scan_info_tells_how_a_scan_was_labelled(graph, tiny_bundle):
    graph.label(cloud(room(), START + 5))
    stamped = graph.until(
        lambda: [i for i in graph.infos if diagnostics.values(i)["stamp_ns"] == str(START + 5)], "scan info"
    )
    values = diagnostics.values(stamped[0])
    assert values["points"] == str(16 * 128)
    assert 0 < int(values["labelled"]) < 16 * 128
    assert int(values["voxels"]) > 100
    assert (values["voxel_size"], values["model"]) == ("0.1", str(tiny_bundle))
    assert values["engine"].startswith("reference")
    assert values["image_offset_ms"] == ""
    stages = {"wait", "decode", "preprocess", "network", "backfill", "encode", "publish", "total"}
    assert {f"ms.{stage}" for stage in stages} <= set(values)
    assert float(values["ms.total"]) >= float(values["ms.network"]) > 0


def test_label_space_is_there_for_late_comers(graph):
    spaces = graph.subscribe(String, "/segmentation_node/label_space", qos.LATCHED)
    graph.until(lambda: spaces, "the label space")
    assert LabelSpace.model_validate(yaml.safe_load(spaces[0].data)) == LabelSpace.load("structural6")


def nothing(count: int = 64) -> Scan:
    return Scan(np.full((count, 3), np.nan, np.float32), np.zeros(count))


UNUSABLE = {
    "empty": (lambda: cloud(room(), height=0, width=0, row_step=0, data=array("B")), r"empty: height 0 x width 0"),
    "short data": (lambda: cloud(room(), data=array("B", [0] * 99)), r"data of the cloud has 99 bytes"),
}
ODD = {
    "all NaN": (lambda: cloud(nothing()), "no_returns", r"has no return"),
    "one point": (lambda: cloud(Scan(np.ones((1, 3)), np.ones(1))), "few_points", r"has only \d returns"),
    "far away": (lambda: cloud(Scan(room().xyz * 1000, room().intensity)), "outside_view", r"beyond the model's field"),
    "no intensity": (lambda: cloud(Scan(room().xyz)), "no_intensity", r"has no usable intensity"),
    "zero stamp": (lambda: cloud(room(), 0), "zero_stamp", r"have no stamp"),
    "backwards": (lambda: cloud(room(), START - 100 * SECOND), "time_backwards", r"went back in time"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_cloud_is_named_and_counted(graph, name):
    make, pattern = UNUSABLE[name]
    reason = "empty" if "empty" in pattern else "malformed"
    graph.until(graph.counts, "diagnostics")
    before = int(graph.counts().get(f"dropped.{reason}", 0))
    graph.points.publish(make())
    graph.until(lambda: graph.logged(pattern), f"a line about {pattern}")
    graph.until(lambda: int(graph.counts().get(f"dropped.{reason}", 0)) == before + 1, "a count in /diagnostics")
    assert graph.label(cloud(room())), "the node goes on"


@pytest.mark.parametrize("name", ODD)
def test_odd_cloud_is_labelled_and_named_and_counted(graph, name):
    make, note, pattern = ODD[name]
    graph.label(cloud(room(), START))
    before = int(graph.counts().get(f"note.{note}", 0)) if graph.until(graph.counts, "diagnostics") else 0
    message = make()
    out = graph.label(message)
    labels = point_cloud2.decode_labels(out)
    assert len(labels.label) == message.height * message.width
    returns = point_cloud2.decode(message).valid()
    assert (labels.label[~returns] == UNLABELLED).all() and (labels.confidence[~returns] == 0).all()
    graph.until(lambda: graph.logged(pattern), f"a line about {pattern}")
    graph.until(lambda: int(graph.counts().get(f"note.{note}", 0)) > before, "a count in /diagnostics")


def test_newest_scan_wins_and_every_scan_is_counted(graph):
    graph.until(graph.counts, "diagnostics")
    graph.until(lambda: graph.counts()["pending"] == "0", "a node at rest")
    before, labelled = graph.counts(), len(graph.labelled)
    stamps = [START + 1000 * SECOND + i for i in range(40)]
    for i, stamp in enumerate(stamps, start=1):
        graph.points.publish(cloud(room(), stamp))
        if (
            i % qos.OUTPUT.depth == 0
        ):  # more at once get lost on the way where the node's process stands still for a moment
            graph.until(lambda i=i: int(graph.counts()["in"]) == int(before["in"]) + i, f"the first {i} scans")
    graph.until(lambda: graph.counts()["pending"] == "0", "all scans accounted for")
    now = graph.counts()
    assert int(now["in"]) == int(now["out"]) + int(now["dropped"])
    assert int(now["dropped"]) == sum(int(v) for k, v in now.items() if k.startswith("dropped."))
    published = int(now["out"]) - int(before["out"])
    graph.until(lambda: len(graph.labelled) >= labelled + published, "all labelled clouds")
    received = [point_cloud2.stamp_ns(m.header) for m in graph.labelled[labelled:]]
    assert received == sorted(received) and len(received) == published
    assert received[-1] == stamps[-1], "the newest is never dropped"
    # What was skipped stands in the scan infos: numbers of scans as they came.
    graph.until(lambda: diagnostics.values(graph.infos[-1])["stamp_ns"] == str(stamps[-1]), "the last scan info")
    assert diagnostics.values(graph.infos[-1])["seq"] == str(int(now["in"]) - 1)


def test_parameters_are_described_and_guarded(graph):
    names = [parameter.name for parameter in segmentation_node.PARAMETERS]
    descriptors = graph.call(DescribeParameters, "describe_parameters", names=names).descriptors
    assert [d.name for d in descriptors] == names
    assert all(len(d.description) > 10 for d in descriptors)
    by_name = {d.name: d for d in descriptors}
    assert by_name["model"].read_only and not by_name["min_confidence"].read_only
    assert by_name["min_confidence"].floating_point_range[0].to_value == 1.0
    assert "hydra" in by_name["output_profile"].additional_constraints
    assert not graph.set_parameter("model", "another").successful
    assert not graph.set_parameter("min_confidence", 2.0).successful
    assert graph.set_parameter("min_confidence", 0.99).successful
    try:
        unsure = point_cloud2.decode_labels(graph.label(cloud(room())))
        assert (unsure.label == UNLABELLED).all()
    finally:
        assert graph.set_parameter("min_confidence", 0.0).successful


def image_message(stamp: int, value: int = 100) -> Image:
    return encode(np.full((240, 320, 3), value, np.uint8), "rgb8", header(stamp, "camera"), Image)


def test_overlay_comes_when_somebody_looks(graph, tmp_path):
    overlays = graph.subscribe(Image, "/segmentation_node/overlay")
    images = graph.publisher(Image, "/image")
    graph.until(lambda: graph.node.count_publishers("/segmentation_node/overlay"), "the overlay's publisher")
    stamp = START + 2000 * SECOND
    for offset in (-40, 10, 70):  # milliseconds
        images.publish(image_message(stamp + offset * 1_000_000, value=100 + offset))

    def overlay():
        graph.label(cloud(room(seed=3), stamp))
        told = lambda: graph.infos and diagnostics.values(graph.infos[-1])["stamp_ns"] == str(stamp)  # noqa: E731
        graph.until(told, "scan info")
        return overlays  # discovery takes its time

    graph.until(overlay, "an overlay")
    drawn = overlays[-1]
    assert drawn.header == header(stamp + 10_000_000, "camera"), "the image of nearest stamp"
    pixels = to_rgb(drawn)
    assert pixels.shape == (240, 320, 3)
    touched = (pixels != 110).any(axis=2)
    assert 0.02 < touched.mean() < 0.98
    palette = LabelSpace.load("structural6").palette
    ids = np.unique(point_cloud2.decode_labels(graph.labelled[-1]).label)
    mixed = np.rint(palette[ids] * np.float32(0.8) + np.float32(110 * (1 - np.float32(0.8))))
    seen = np.unique(pixels[touched], axis=0)
    assert all(np.abs(mixed - colour).max(axis=1).min() <= 1 for colour in seen.astype(np.float32))
    values = diagnostics.values(graph.infos[-1])
    assert values["image_offset_ms"] == "10.000" and float(values["ms.overlay"]) > 0
    graph.until(lambda: float(graph.counts()["image.match_rate"]) > 0, "a match rate in /diagnostics")


def test_image_without_calibration(tiny_bundle, tmp_path):
    with Graph(tmp_path, *node_arguments(tiny_bundle, label_space="structural4")) as graph:
        overlays = graph.subscribe(Image, "/segmentation_node/overlay")
        images = graph.publisher(Image, "/image")
        infos = graph.publisher(CameraInfo, "/camera_info")
        infos.publish(CameraInfo(width=320, height=240))

        def complaint():
            images.publish(image_message(START))
            graph.label(cloud(room()))
            return graph.logged(r"no overlay: where the camera sits is not known; give a calibration_file")

        graph.until(complaint, "a line about the camera")
        graph.until(lambda: int(graph.counts().get("note.no_overlay", 0)) > 0, "a count in /diagnostics")
        graph.until(lambda: complaint() and graph.warns("no overlay: where the camera sits"), "a warning")
        assert not overlays
        # In another label space, its ids and its YAML go out.
        spaces = graph.subscribe(String, "/segmentation_node/label_space", qos.LATCHED)
        graph.until(lambda: spaces, "the label space")
        assert yaml.safe_load(spaces[0].data)["name"] == "structural4"
        assert set(point_cloud2.decode_labels(graph.labelled[-1]).label) <= {0, 1, 2, 3, UNLABELLED}
        assert graph.program.stop(signal.SIGTERM) == 0
        assert "Traceback" not in graph.program.err


def test_a_lidar_that_leans_is_warned_of_unless_it_is_calibrated(graph, tiny_bundle, tmp_path):
    from cmp_seg_ros.simulation.building import make_building
    from cmp_seg_ros.simulation.generate import scans_in

    level, _, T_base_lidar = next(scans_in(make_building(10_000_003), 1, "os1-16"))
    upright = level.xyz @ T_base_lidar[:3, :3].T.astype(np.float32)
    scan = Scan(upright @ np.array(T_BASE_LIDAR, np.float32)[:3, :3], level.intensity, shape=level.shape)
    with Graph(tmp_path, *node_arguments(tiny_bundle)) as leaning:
        leaning.label(cloud(scan))
        leaning.until(
            lambda: leaning.logged(r"leans by about (19|2\d) degrees.*give T_base_lidar"), "a line about the tilt"
        )
        leaning.until(lambda: leaning.counts().get("note.tilted") == "1", "a count in /diagnostics")
        leaning.label(cloud(scan))
        before = len(leaning.reports)
        leaning.until(lambda: len(leaning.reports) > before + 5, "reports long after")
        assert leaning.warns("leans by about")
    graph.label(cloud(scan))
    assert not graph.logged("leans")


SLOW = """
import time
from cmp_seg_ros.engine.runtimes import reference
from cmp_seg_ros.nodes import segmentation_node
evaluate = reference.ReferenceEngine.__call__

def slowly(self, inputs):
    time.sleep(len(inputs["features"]) * 0.25e-3)
    return evaluate(self, inputs)

reference.ReferenceEngine.__call__ = slowly
segmentation_node.main()
"""


def test_voxels_become_coarser_where_the_machine_is_too_slow(tiny_bundle, calibration_file, tmp_path, start_robot):
    """1400 voxels of 0.1 m take 350 ms, 600 of 0.2 m take 150; 200 are there."""
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    arguments = node_arguments(tiny_bundle, calibration_file=calibration_file, target_rate_hz=5)
    graph = start_robot(Graph, str(script), *arguments[1:])
    scan = Scan(room().xyz * np.float32(0.3), room().intensity)
    sent = [0]

    def info(coarse: bool):
        """Send one more scan, sooner than the last can be done; the last info, if its voxels are coarse or not."""
        sent[0] += 1
        graph.points.publish(cloud(scan, START + sent[0]))
        values = diagnostics.values(graph.infos[-1]) if graph.infos else {"voxel_size": "nan"}
        return values if (float(values["voxel_size"]) > 0.1) == coarse else None

    graph.until(lambda: info(coarse=False), "a first scan")
    values = graph.until(lambda: info(coarse=True), "coarser voxels")
    graph.until(lambda: graph.counts().get("rate_keeper") == "coarse", "the keeper's state in /diagnostics")
    assert float(graph.counts()["rate_keeper.voxel_size"]) > 0.1
    assert int(graph.counts()["rate_keeper.changes"]) >= 1
    assert float(graph.counts()["rate_keeper.budget_ms"]) == 200
    assert graph.logged(r"voxels are 0\.\d+ m from now on, 0\.1 m before: .* of 200 ms for 5 scans a second")
    expected = offline(tiny_bundle, scan, float(values["voxel_size"]))
    assert int(values["voxels"]) == expected.voxels
    labelled = {str(point_cloud2.stamp_ns(m.header)): m for m in graph.labelled}[values["stamp_ns"]]
    np.testing.assert_array_equal(point_cloud2.decode_labels(labelled).label, expected.label)

    assert graph.set_parameter("target_rate_hz", 0.0).successful
    graph.until(lambda: info(coarse=False), "the voxels of the bundle")
    graph.until(lambda: graph.counts().get("rate_keeper") == "off", "the keeper's state in /diagnostics")
    assert graph.program.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("profile", ["autoware", "elevation_mapping"])
def test_profiles_with_the_probability_of_every_class(tiny_bundle, tmp_path, profile):
    with Graph(tmp_path, *node_arguments(tiny_bundle, output_profile=profile)) as graph:
        scan = Scan(room().xyz)
        fields = point_cloud2.decode_fields(graph.label(cloud(scan)))
    expected = offline(tiny_bundle, scan, T_base_lidar=np.eye(4))
    valid = scan.valid()
    if profile == "autoware":
        np.testing.assert_array_equal(fields["class_id"], expected.label)
        logarithm = np.log(np.where(valid[:, None], expected.probabilities, 1))
        entropy = -(expected.probabilities * logarithm).sum(axis=1) / np.log(6)
        np.testing.assert_allclose(fields["entropy"][valid], entropy[valid], atol=1e-4)
        assert np.isnan(fields["entropy"][~valid]).all() and np.ptp(entropy[valid]) > 0.01
    else:
        names = LabelSpace.load("structural6").names
        np.testing.assert_allclose(np.stack([fields[n] for n in names], 1), expected.probabilities, atol=1e-5)


FAILING = """
import numpy as np
from cmp_seg_ros import segmenter
from cmp_seg_ros.engine.runtimes import reference
from cmp_seg_ros.nodes import segmentation_node
label, evaluate = segmenter.Segmenter.__call__, reference.ReferenceEngine.__call__
factor = [1]

def fails(self, scan):
    if scan.stamp == 13:
        raise RuntimeError("the engine burns")
    factor[0] = np.float32(np.nan if scan.stamp == 14 else 1)
    return label(self, scan)

segmenter.Segmenter.__call__ = fails
reference.ReferenceEngine.__call__ = lambda self, inputs: {"logits": evaluate(self, inputs)["logits"] * factor[0]}
segmentation_node.main()
"""


def test_a_fault_of_the_engine_costs_one_scan(tiny_bundle, tmp_path):
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    with Graph(tmp_path / "logs", str(script), *node_arguments(tiny_bundle)[1:]) as graph:
        graph.label(cloud(room()))
        graph.points.publish(cloud(room(), 13))
        graph.until(lambda: graph.logged(r"message 1 on /points is dropped: RuntimeError: the engine burns"), "a line")
        graph.points.publish(cloud(room(), 14))
        graph.until(lambda: graph.logged(r"message 2 on /points is dropped: engine 'reference-fp32'"), "a line")
        graph.label(cloud(room()))
        graph.until(lambda: graph.counts().get("dropped.failed") == "2", "a count in /diagnostics")
        assert len(graph.labelled) == 2, "no label is made of NaN"
        assert any(report.status[0].level == diagnostics.ERROR for report in graph.reports)
        graph.until(graph.healthy, "health again")
        assert graph.program.stop(signal.SIGINT) == 0
