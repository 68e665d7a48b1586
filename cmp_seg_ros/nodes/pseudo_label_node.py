"""Labels scans by what an image teacher sees, beside the network's labels, and watches how well the two agree.

    pseudo_label_node --ros-args -r labelled_points:=/segmentation_node/labelled_points -p calibration_file:=robot.yaml

A labelled cloud is joined with the image of nearest stamp. The teacher's masks are carried to the points that the
camera sees. Their agreement with the network's labels over the last scans stands in /diagnostics; where it is low the
network has drifted from what the camera sees. docs/node.md has more.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import String

from cmp_seg_ros.datasets.frame import CameraImage, Frame, PointLabels
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry import overlay
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import cdr, images, point_cloud2
from cmp_seg_ros.nodes.pseudo_label.agreement import Agreement
from cmp_seg_ros.nodes.pseudo_label.disagreements import Disagreements
from cmp_seg_ros.pseudo_labels.labeller import PseudoLabeller, Refinements, View
from cmp_seg_ros.ros import camera, diagnostics, node, qos, sensors
from cmp_seg_ros.ros.inputs import Arrival
from cmp_seg_ros.ros.node import NotYet, Rejected, WorkerNode
from cmp_seg_ros.ros.parameters import Parameter
from cmp_seg_ros.ros.report import Problem
from cmp_seg_ros.ros.sensors import Sensors
from cmp_seg_ros.ros.stopwatch import Stopwatch
from cmp_seg_ros.scan import Labels, Scan, UInt8
from cmp_seg_ros.teachers.base import open_teacher

NAME = "pseudo_label_node"
STRING = "std_msgs/msg/String"
ENOUGH = 10  # scans that an agreement must be measured on before it raises a warning
MASK_OPACITY = 0.45
PARAMETERS = [
    Parameter("teacher", "mosaic", "Name of a teacher (cmp-seg teachers), or its weights"),
    Parameter("label_space", "", "Label space of both, by name or file; empty: as the topic label_space says"),
    Parameter("variant", "pseudo", "Of its mapping from the teacher's classes; empty maps all of them"),
    Parameter("confidence", 0.6, "Least probability of a pseudo-label", (0.0, 1.0)),
    Parameter("geometry", False, "Weigh classes by the floor, ceiling and walls of the scan; costs some 50 ms"),
    Parameter("rate_hz", 4.0, "Scans a second that are labelled at most", (0.1, 100.0), read_only=False),
    Parameter("niceness", 10, "Steps by which the process gives way to others, such as the segmentation", (0, 19)),
    Parameter("window", 100, "Scans over which the agreement is taken", (1, 10_000)),
    Parameter(
        "least_agreement", 0.5, "Below it /diagnostics warns of drift; 0: never", (0.0, 1.0), read_only=False
    ),
    Parameter("record_folder", "", "Where scans that disagree are recorded; empty: nowhere"),
    Parameter(
        "record_below", 0.5, "Agreement of a scan below which it is recorded", (0.0, 1.0), read_only=False
    ),
    Parameter("record_megabytes", 1000.0, "Most that the bags in record_folder take up", (0.0, 1e9)),
    *sensors.PARAMETERS,
    *camera.PARAMETERS,
    *node.PARAMETERS,
]  # fmt: skip


@dataclass
class Taught:
    """A scan with the teacher's labels; `network`: the labels that came with it, if any."""

    message: Any
    scan: Scan
    header: Any  # of the image
    view: View
    labels: PointLabels
    network: UInt8 | None


class PseudoLabelNode(WorkerNode[Taught]):
    """The node. Raises UserError for wrong parameters."""

    work, things = "asking the teacher about", "scans"

    def __init__(self) -> None:
        super().__init__(NAME, PARAMETERS, PointCloud2, "labelled_points")
        self.labeller: PseudoLabeller | None = None
        self.agreement: Agreement | None = None
        self.space: LabelSpace | None = None
        self._noted = -1  # number of the last cloud whose stamp was noted
        self._begun = 0.0  # when the last scan was begun, monotonic

    def set_up(self) -> None:
        """Add the inputs beside the clouds, and the outputs."""
        p = self.parameters
        self.sensors = Sensors(self, p)
        self.camera = self.sensors.camera_input(self.inputs)
        if p["label_space"]:
            self.space = LabelSpace.load(p["label_space"])
        else:
            self.inputs.add(String, "label_space", self._on_space)
        self.add_output(PointCloud2, "~/pseudo_points", self._encode)
        self.overlay = self.add_output(Image, "~/overlay", self._draw)
        self._space_publisher = self.create_publisher(String, "~/label_space", qos.LATCHED)
        self.recorder: Disagreements | None = None
        if p["record_folder"]:
            self.recorder = Disagreements(
                Path(p["record_folder"]),
                int(p["record_megabytes"] * 1e6),
                f"/{p['camera_name'] or 'camera'}/{self.camera.topic}",
                self.camera.type,
                p["calibration_file"],
            )

    def load(self) -> None:
        """Open the teacher and run it once."""
        p = self.parameters
        os.nice(p["niceness"])
        self.teacher = open_teacher(p["teacher"])
        if self.teacher.label_space is None:
            raise UserError(f"teacher {p['teacher']} gives features, but no masks; take another")
        self.teacher.masks(np.zeros((480, 640, 3), np.uint8))
        if self.space is not None:
            self._teach(self.space)
        self.get_logger().info(f"ready: teacher {p['teacher']}")

    def _on_space(self, data: bytes) -> None:
        try:
            self.space = LabelSpace.from_yaml(cdr.deserialize(data, STRING).data, "on topic label_space")
        except UserError as error:
            self.report.note("label_space", str(error))

    def _teach(self, space: LabelSpace) -> PseudoLabeller:
        """Map the teacher's classes to a label space. Raises UserError."""
        p = self.parameters
        asked = Refinements(confidence=p["confidence"], agreement=0, geometry=p["geometry"], time=False)
        self.labeller = PseudoLabeller(self.teacher, space, p["variant"], asked)
        self.agreement = Agreement(space, p["window"])
        self._space_publisher.publish(String(data=space.to_yaml()))
        return self.labeller

    # From a cloud and an image to labels, in the worker's thread.

    def process(self, arrival: Arrival, clock: Stopwatch) -> Taught:
        """Label a scan by its image."""
        now = time.monotonic()
        if now - self._begun < 1 / self.parameters["rate_hz"]:
            raise NotYet
        message, scan, network = self._decode(arrival)
        stamp = self.sensors.camera_stamp(scan)
        if arrival.number != self._noted:
            self._noted = arrival.number
            self.camera.add_scan(stamp)
        if not self.camera.decided(stamp, arrival.time):
            raise NotYet
        labeller = self._labeller()
        match = self.camera.match(stamp)
        self._begun = now
        if match is None:
            raise Rejected("no_image") from UserError("no image is near it in time")
        seen = self.camera.decode(match.image, scan.frame_id)
        clock.lap("decode")
        image = CameraImage(point_cloud2.stamp_ns(seen.header), lambda: seen.rgb, seen.camera)
        frame = Frame(str(arrival.number), scan, images={"camera": image}, T_base_lidar=self.sensors.mounting)
        evidence = labeller.look(frame)
        labels = labeller.confident(labeller.decide(evidence))
        clock.lap("teacher")
        taught = Taught(message, scan, seen.header, evidence.views["camera"], labels, network)
        self._compare(taught, arrival.data, match.image.data)
        return taught

    def _decode(self, arrival: Arrival) -> tuple[Any, Scan, UInt8 | None]:
        """The cloud, its scan, and the labels in it, if any. Raises Rejected."""
        try:
            message = cdr.deserialize(arrival.data, cdr.POINT_CLOUD2)
            scan = point_cloud2.decode(message, with_time=False)
            labelled = any(field.name == "label" for field in message.fields)
            return message, scan, point_cloud2.decode_labels(message).label if labelled else None
        except Exception as error:
            raise Rejected("malformed") from error

    def _labeller(self) -> PseudoLabeller:
        """Raises NotYet while the label space is not known, UserError if the teacher does not map to it."""
        if self.space is None:
            topic = self.resolve_topic_name("label_space")
            self.report.note(
                "no_label_space", f"no label space came on {topic} yet; start its node, or set label_space"
            )
            raise NotYet
        if self.labeller is None or self.labeller.space is not self.space:
            return self._teach(self.space)
        return self.labeller

    def _compare(self, taught: Taught, cloud: bytes, image: bytes) -> None:
        """Count how well teacher and network agree, and record the scan where they do not."""
        if taught.network is None or self.agreement is None:
            return
        share = self.agreement.add(taught.labels.label, taught.network)
        if self.recorder is not None and share is not None and share < self.parameters["record_below"]:
            self.recorder.add(taught.scan.stamp, cloud, image)

    # Outputs.

    def _encode(self, taught: Taught) -> bytes:
        space, confidence = taught.labels.space, taught.labels.confidence
        assert confidence is not None
        labels = Labels(taught.labels.label, confidence)
        cloud = point_cloud2.encode_labelled(taught.message, labels, space)
        return cdr.serialize_cloud(cloud, taught.message.header)

    def _draw(self, taught: Taught) -> bytes:
        """The image with the teacher's mask and labels; beside it the same image with the network's labels."""
        assert self.labeller is not None
        palette = taught.labels.space.palette
        mask = palette[self.labeller.mask(taught.view)]
        blended = taught.view.rgb * np.float32(1 - MASK_OPACITY) + mask * np.float32(MASK_OPACITY)
        parts = [self._points_over(blended.astype(np.uint8), taught, taught.labels.label)]
        if taught.network is not None:
            parts.append(self._points_over(taught.view.rgb, taught, taught.network))
        drawn = images.encode(np.hstack(parts), "rgb8", taught.header, cdr.message_class(cdr.IMAGE))
        return cdr.serialize(drawn, cdr.IMAGE)

    def _points_over(self, rgb: UInt8, taught: Taught, label: UInt8) -> UInt8:
        p, palette = self.parameters, taught.labels.space.palette
        size, opacity = p["overlay_point_size"], p["overlay_opacity"]
        return overlay.draw(rgb, taught.view.projection, label, palette, size, opacity)

    # Diagnostics.

    def values(self) -> dict[str, Any]:
        """The agreement over the last scans, and what was recorded."""
        values: dict[str, Any] = {"teacher": self.parameters["teacher"]} | self.camera.values()
        if self.agreement is not None:
            values |= {"agreement": self.agreement.overall, "agreement.scans": len(self.agreement)}
            values |= {f"agreement.{name}": share for name, share in self.agreement.by_class()}
        if self.recorder is not None:
            values |= {"recorded": self.recorder.recorded}
        return values

    def problems(self) -> list[Problem]:
        """No images, low agreement of teacher and network, or disagreements that cannot be recorded."""
        found = [self.camera.problem(wanted=True)]
        least, agreement = self.parameters["least_agreement"], self.agreement
        overall = None if agreement is None else agreement.overall
        if agreement is not None and overall is not None and len(agreement) >= ENOUGH and overall < least:
            found.append(
                f"network and teacher agree on {overall:.0%} of the points over the last {len(agreement)} scans "
                f"(least_agreement is {least:.0%}): check the calibration (cmp-seg calibration check), or teach the "
                "network with scans of this place"
            )
        if self.recorder is not None and self.recorder.ended:
            found.append(f"disagreements are no longer recorded: {self.recorder.ended}")
        return [Problem(diagnostics.WARN, message) for message in found if message]

    def clean_up(self) -> None:
        """End, the recording too."""
        super().clean_up()
        if self.recorder is not None:
            self.recorder.close()


def main() -> None:
    """Entry point."""
    node.main(NAME, PseudoLabelNode, __doc__ or "", PARAMETERS)


if __name__ == "__main__":
    main()
