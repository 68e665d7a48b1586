"""Serialised messages: what rclpy makes and reads (but for bytes between fields), without its copies."""

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs import msg as sensor_msgs
from std_msgs.msg import Header

from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import cdr, images, point_cloud2
from cmp_seg_ros.scan import Labels

SECOND = 1_000_000_000


def cloud_and_header():
    cloud = point_cloud2.encode({axis: np.arange(12, dtype=np.float32) for axis in "xyz"}, (3, 4))
    header = Header(frame_id="lidar_with_an_odd_name")
    header.stamp.sec, header.stamp.nanosec = 1_800_000_000, 7
    return cloud, header


def test_clouds_go_to_rclpy_and_back():
    cloud, header = cloud_and_header()
    message = cloud.message(header, sensor_msgs.PointCloud2, sensor_msgs.PointField)
    data = serialize_message(message)
    read = cdr.deserialize(data, cdr.POINT_CLOUD2)
    assert point_cloud2.decode(read).frame_id == header.frame_id
    for one in (message, read):  # of rclpy, of rosbags
        np.testing.assert_array_equal(point_cloud2.decode(one).xyz, np.repeat(np.arange(12.0), 3).reshape(12, 3))
    labels = Labels(np.arange(12, dtype=np.uint8) % 6, np.ones(12, np.float32))
    first, second = (
        point_cloud2.encode_labelled(one, labels, LabelSpace.load("structural6")) for one in (message, read)
    )
    assert first == second
    written = cdr.serialize_cloud(cloud, read.header)
    assert len(written) == len(data) and deserialize_message(written, sensor_msgs.PointCloud2) == message
    assert np.shares_memory(read.data, np.frombuffer(data, np.uint8))


def test_images_go_to_rclpy_and_back():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    message = images.encode(pixels, "rgb8", Header(), sensor_msgs.Image)
    data = serialize_message(message)
    read = cdr.deserialize(data, cdr.IMAGE)
    np.testing.assert_array_equal(images.to_rgb(read), pixels)
    written = cdr.serialize(images.encode(pixels, "rgb8", read.header, cdr.message_class(cdr.IMAGE)), cdr.IMAGE)
    assert len(written) == len(data) and deserialize_message(written, sensor_msgs.Image) == message


def test_stamps_are_read_and_changed_in_place():
    cloud, header = cloud_and_header()
    data = serialize_message(cloud.message(header, sensor_msgs.PointCloud2, sensor_msgs.PointField))
    assert cdr.stamp_ns(data) == 1_800_000_000 * SECOND + 7
    changed = cdr.with_stamp(data, 5 * SECOND + 123)
    assert cdr.stamp_ns(changed) == 5 * SECOND + 123
    message = deserialize_message(changed, sensor_msgs.PointCloud2)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (5, 123)
    assert (message.header.frame_id, message.width) == (header.frame_id, 4)
    assert cdr.with_stamp(changed, cdr.stamp_ns(data)) == data
