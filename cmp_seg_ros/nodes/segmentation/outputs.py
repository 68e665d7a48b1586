"""What goes out: the labelled cloud, how it came about, the camera image with its labels, the label space."""

from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import String

from cmp_seg_ros.geometry import overlay
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import cdr, images, point_cloud2
from cmp_seg_ros.nodes.segmentation.inputs import Labelled
from cmp_seg_ros.ros import diagnostics, qos
from cmp_seg_ros.ros.camera_view import CameraView
from cmp_seg_ros.ros.parameters import Parameters
from cmp_seg_ros.scan import UNLABELLED, Labels


class Outputs:
    """The publishers. `space` is known once the model is."""

    def __init__(self, node: Node, parameters: Parameters) -> None:
        self._node, self._parameters = node, parameters
        self._cloud = node.create_publisher(PointCloud2, "~/labelled_points", qos.OUTPUT)
        self._info = node.create_publisher(DiagnosticStatus, "~/scan_info", qos.OUTPUT)
        self._overlay = node.create_publisher(Image, "~/overlay", qos.OUTPUT)
        self._space_publisher = node.create_publisher(String, "~/label_space", qos.LATCHED)

    @property
    def topic(self) -> str:
        """Where the labelled clouds go."""
        return str(self._cloud.topic_name)

    def wanted(self) -> bool:
        """Whether anybody listens."""
        return any(p.get_subscription_count() for p in (self._cloud, self._overlay, self._info))

    def overlay_wanted(self) -> bool:
        """Whether anybody looks at the overlay."""
        return bool(self._overlay.get_subscription_count())

    def announce(self, space: LabelSpace) -> None:
        """Publish the label space; also as vision_msgs/LabelInfo where that is installed."""
        self.space = space
        self._space_publisher.publish(String(data=space.to_yaml()))
        try:
            from vision_msgs.msg import LabelInfo, VisionClass
        except ImportError:
            return
        classes = [VisionClass(class_id=c.id, class_name=c.name) for c in space.classes]
        self._label_info = self._node.create_publisher(LabelInfo, "~/label_info", qos.LATCHED)
        self._label_info.publish(LabelInfo(class_map=classes, threshold=self._parameters["min_confidence"]))

    def encode(self, msg: Any, labels: Labels) -> bytes:
        """The labelled cloud of the PointCloud2 `msg`, serialised. Raises UserError."""
        cloud = point_cloud2.encode_labelled(msg, labels, self.space, self._parameters["output_profile"])
        return cdr.serialize_cloud(cloud, msg.header)

    def publish_cloud(self, cloud: bytes) -> None:
        """Publish what `encode` made."""
        self._cloud.publish(cloud)

    def publish_overlay(self, labelled: Labelled, data: bytes, view: CameraView) -> None:
        """Draw the labels into an image as it came, serialised. Raises UserError."""
        p = self._parameters
        msg = cdr.deserialize(data, cdr.COMPRESSED_IMAGE if p["image_transport"] == "compressed" else cdr.IMAGE)
        drawn = overlay.draw(
            image := images.to_rgb(msg),
            labelled.scan.xyz,
            labelled.labels.label,
            self.space.palette,
            view.camera(image.shape[1], image.shape[0]),
            view.T_camera_lidar(msg.header.frame_id, labelled.scan.frame_id),
            p["overlay_point_size"],
            p["overlay_opacity"],
        )
        out = images.encode(drawn, "rgb8", msg.header, cdr.message_class(cdr.IMAGE))
        self._overlay.publish(cdr.serialize(out, cdr.IMAGE))

    def publish_info(
        self, labelled: Labelled, engine: str, image_offset: int | None, stages_ms: dict[str, float]
    ) -> None:
        """~/scan_info: how a scan was labelled. `image_offset`: nanoseconds from scan to image."""
        scan, labels = labelled.scan, labelled.labels
        values = {
            "stamp_ns": scan.stamp,
            "seq": labelled.arrival.number,
            "points": len(scan),
            "labelled": np.count_nonzero(labels.label != UNLABELLED),
            "voxels": labels.voxels,
            "voxel_size": repr(float(labels.voxel_size)),  # to label the scan again just so
            "model": self._parameters["model"],
            "engine": engine,
            "image_offset_ms": None if image_offset is None else image_offset * 1e-6,
        } | {f"ms.{stage}": milliseconds for stage, milliseconds in stages_ms.items()}
        name = f"{self._node.get_name()}: scan"
        self._info.publish(diagnostics.status(name, diagnostics.OK, "labelled", scan.frame_id, values))
