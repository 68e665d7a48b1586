"""Outputs of the segmentation node beside the labelled cloud, and the service that stops it."""

import importlib.util

import numpy as np
import pytest
from ros_harness import START, Graph, cloud, node_arguments, room
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from sensor_msgs.msg import Image, PointCloud2
from std_srvs.srv import SetBool

from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import cdr, label_info, point_cloud2
from cmp_seg_ros.messages.images import pixels_of
from cmp_seg_ros.ros import qos
from cmp_seg_ros.scan import UNLABELLED, Scan

NAMES = LabelSpace.load("structural6").names


@pytest.fixture(scope="module")
def graph(tiny_bundle, tmp_path_factory):
    """One node for all tests that do not need another."""
    parameters = {"filter.classes": "'wall, floor'", "entropy": True}
    with Graph(tmp_path_factory.mktemp("logs"), *node_arguments(tiny_bundle, **parameters)) as graph:
        yield graph


def stamped(messages, stamp):
    return [message for message in messages if point_cloud2.stamp_ns(message.header) == stamp]


def both(graph, topic, message_type, message):
    """The labelled cloud of a message, and what comes on another topic of the same stamp."""
    others = graph.subscribe(message_type, f"{graph.name}/{topic}")
    graph.until(lambda: graph.node.count_publishers(f"{graph.name}/{topic}"), f"the publisher of {topic}")
    stamp = point_cloud2.stamp_ns(message.header)
    graph.until(lambda: graph.label(message) and stamped(others, stamp), f"a message on {topic}")
    return graph.labelled[-1], stamped(others, stamp)[0]


def test_filtered_cloud_has_the_input_layout_without_the_classes(graph):
    sent = cloud(room(), START + 1)
    labelled, filtered = both(graph, "filtered_points", PointCloud2, sent)
    assert (filtered.fields, filtered.point_step, filtered.height) == (sent.fields, sent.point_step, 1)
    assert filtered.header == sent.header
    label = point_cloud2.decode_labels(labelled).label
    kept = (label != UNLABELLED) & ~np.isin(label, [NAMES.index("wall"), NAMES.index("floor")])
    assert 0 < kept.sum() < (label != UNLABELLED).sum()
    given, got = point_cloud2.decode_fields(sent), point_cloud2.decode_fields(filtered)
    for name, values in given.items():
        np.testing.assert_array_equal(got[name], values[kept])


def test_a_sure_filter_removes_less_and_the_inverse_keeps_the_rest(tiny_bundle, tmp_path):
    parameters = {"filter.classes": "wall,floor", "filter.keep": True}
    with Graph(tmp_path, *node_arguments(tiny_bundle, **parameters)) as graph:
        labelled, filtered = both(graph, "filtered_points", PointCloud2, cloud(room(), START + 1))
        labels = point_cloud2.decode_labels(labelled)
        named = np.isin(labels.label, [NAMES.index("wall"), NAMES.index("floor")])
        assert filtered.width == named.sum() > 0
        least = float(np.median(labels.confidence[named]))
        assert graph.set_parameter("filter.min_confidence", least).successful
        _, filtered = both(graph, "filtered_points", PointCloud2, cloud(room(), START + 2))
        assert filtered.width == (named & (labels.confidence >= least)).sum() < named.sum()


@pytest.mark.parametrize("topic", ["label_image", "confidence_image"])
def test_organised_clouds_have_images_of_their_shape(graph, topic):
    labelled, image = both(graph, topic, Image, cloud(room(), START + 3))
    labels = point_cloud2.decode_labels(labelled)
    expected = labels.label if topic == "label_image" else np.rint(255 * labels.confidence)
    pixels = pixels_of(image)[:, :, 0]
    assert (image.encoding, image.header) == ("mono8", labelled.header)
    np.testing.assert_array_equal(pixels, expected.reshape(labelled.height, labelled.width))


def test_clouds_without_rows_have_no_image_and_that_is_said(graph):
    images = graph.subscribe(Image, f"{graph.name}/label_image")
    flat = Scan(room(2047).xyz, room(2047).intensity)

    def warned():
        assert graph.label(cloud(flat, START + 4))
        return graph.warns(r"no label_image: the clouds are not organised")

    graph.until(warned, "a warning")
    assert not stamped(images, START + 4)


def test_entropy_is_a_field_of_its_own_before_the_label(graph):
    labelled = graph.label(cloud(room()))
    assert [field.name for field in labelled.fields][-4:] == ["confidence", "rgb", "entropy", "label"]
    fields = point_cloud2.decode_fields(labelled)
    there = fields["label"] != UNLABELLED
    assert np.isnan(fields["entropy"][~there]).all()
    assert (fields["entropy"][there] >= 0).all() and (fields["entropy"][there] <= 1).all()
    sure, unsure = (
        fields["entropy"][there][i]
        for i in (fields["confidence"][there].argmax(), fields["confidence"][there].argmin())
    )
    assert sure < unsure


def test_disabled_it_listens_to_nothing_and_enabled_it_labels_the_next_scan(graph):
    def enable(data):
        answer = graph.call(SetBool, "enable", data=data)
        return answer.success, answer.message

    graph.label(cloud(room()))
    assert enable(False) == (True, "disabled")
    graph.until(lambda: not graph.points.get_subscription_count(), "an end of the subscription")
    graph.until(lambda: graph.healthy() and graph.health.message == "disabled by ~/enable", "health")
    before = graph.counts()
    graph.points.publish(cloud(room(), START + 5))
    reports = len(graph.reports)
    graph.until(lambda: len(graph.reports) > reports + 1, "reports")
    assert graph.counts()["in"] == before["in"]
    assert enable(True) == (True, "enabled")
    graph.until(graph.points.get_subscription_count, "a subscription")
    assert point_cloud2.stamp_ns(graph.label(cloud(room(), START + 6)).header) == START + 6


DEFINITIONS = {  # of vision_msgs
    "vision_msgs/msg/VisionClass": "uint16 class_id\nstring class_name",
    "vision_msgs/msg/LabelInfo": "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold",
}


def test_label_info_fits_its_message():
    store = get_typestore(Stores.ROS2_HUMBLE)
    for name, text in DEFINITIONS.items():
        store.register(get_types_from_msg(text, name))
    info, vision_class = (store.types[f"vision_msgs/msg/{name}"] for name in ("LabelInfo", "VisionClass"))
    space = LabelSpace.load("structural6")
    message = label_info.encode(space, 0.25, cdr.header(START), info, vision_class)
    back = store.deserialize_cdr(store.serialize_cdr(message, info.__msgtype__), info.__msgtype__)
    assert {c.class_id: c.class_name for c in back.class_map} == dict(zip(space.ids.tolist(), space.names, strict=True))
    assert (back.threshold, back.header.stamp.sec) == (0.25, START // 1_000_000_000)


@pytest.mark.skipif(importlib.util.find_spec("vision_msgs") is None, reason="vision_msgs is not installed")
def test_label_info_is_there_for_late_comers(graph):
    from vision_msgs.msg import LabelInfo

    infos = graph.subscribe(LabelInfo, f"{graph.name}/label_info", qos.LATCHED)
    graph.until(lambda: infos, "the label info")
    assert [c.class_name for c in infos[0].class_map] == NAMES and infos[0].header.stamp.sec > 0
