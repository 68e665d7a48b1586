"""Labels every lidar scan: PointCloud2 in, labelled PointCloud2 out.

    segmentation_node --ros-args -r points:=/lidar/points -p calibration_file:=robot.yaml

The newest scan is labelled by the `Segmenter` and published; scans that came meanwhile are dropped, and counted. What
becomes of every scan stands in /diagnostics, how each was labelled in ~/scan_info. Where the machine cannot hold the
target rate voxels become coarser. docs/node.md has more.
"""

import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header, String

from cmp_seg_ros.bundle import DEFAULT_BUNDLE
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import cdr, images, label_info, point_cloud2
from cmp_seg_ros.nodes.segmentation.level_check import LevelCheck
from cmp_seg_ros.nodes.segmentation.rate import Rate
from cmp_seg_ros.remarks import StrangeIntensity, Unfamiliar, implausible, remarks
from cmp_seg_ros.ros import camera, diagnostics, node, qos, sensors
from cmp_seg_ros.ros.camera import Stamped
from cmp_seg_ros.ros.inputs import Arrival
from cmp_seg_ros.ros.node import NotYet, Rejected, WorkerNode
from cmp_seg_ros.ros.parameters import Parameter
from cmp_seg_ros.ros.report import Problem
from cmp_seg_ros.ros.sensors import Sensors
from cmp_seg_ros.ros.stopwatch import Stopwatch
from cmp_seg_ros.ros.synchroniser import Match
from cmp_seg_ros.scan import UNLABELLED, Bool, Float32, Labels, Scan, UInt8

if TYPE_CHECKING:
    from cmp_seg_ros.segmenter import Segmenter

NAME = "segmentation_node"
HARMLESS = ("no_intensity", "strange_intensity")  # remarks that leave the health as it is
PARAMETERS = [
    Parameter("model", DEFAULT_BUNDLE, "Model bundle: a folder, or a name in models/"),
    Parameter("engine", "auto", "What runs the network; auto takes the fastest that is right on this machine"),
    Parameter(
        "target_rate_hz",
        15.0,
        "Scans a second that shall be labelled: where the machine is too slow voxels become coarser, up to 0.2 m; "
        "0: always the bundle's voxels",
        (0.0, 1000.0),
        read_only=False,
    ),
    Parameter("label_space", "", "Label space to answer in, by name or file; empty: that of the bundle"),
    Parameter(
        "output_profile",
        "default",
        "Layout of the labelled cloud: default keeps all fields of the input; the others suit other readers",
        point_cloud2.PROFILES,
    ),
    Parameter(
        "entropy",
        False,
        "Whether the labelled cloud has a field entropy (0: certain, 1: all classes equally probable) in every profile",
    ),
    Parameter(
        "min_confidence",
        0.0,
        "Points whose label is less probable become unlabelled (255)",
        (0.0, 1.0),
        read_only=False,
    ),
    Parameter(
        "filter.classes",
        "",
        "Classes of the filter, separated by commas, such as floor,ceiling,person; ~/filtered_points is without them",
    ),
    Parameter("filter.keep", False, "Whether the filter leaves these classes instead of removing them"),
    Parameter(
        "filter.min_confidence",
        0.0,
        "The filter takes a point as of such a class only where its label is at least as probable",
        (0.0, 1.0),
        read_only=False,
    ),
    *sensors.PARAMETERS,
    *camera.PARAMETERS,
    *node.PARAMETERS,
]


@dataclass
class Labelled:
    """A labelled scan. `stamp`: by the cameras' clock; `backwards`: whether it lies before that of the last scan."""

    arrival: Arrival
    clock: Stopwatch
    message: Any
    scan: Scan
    labels: Labels
    stamp: int = 0
    backwards: bool = False
    match: Match[Stamped] | None = None


class SegmentationNode(WorkerNode[Labelled]):
    """The node. Raises UserError for wrong parameters."""

    work, things = "labelling", "scans"

    def __init__(self) -> None:
        super().__init__(NAME, PARAMETERS, PointCloud2, "points")
        self.level_check = LevelCheck(partial(self.report.note, lasting=True))
        self.unfamiliar, self.strange_intensity = Unfamiliar(), StrangeIntensity()
        self.segmenter: Segmenter | None = None

    def set_up(self) -> None:
        """Add the inputs beside the scans, and the outputs."""
        self.sensors = Sensors(self, self.parameters)
        self.camera = self.sensors.camera_input(self.inputs)
        self.add_output(PointCloud2, "~/labelled_points", self._encode)
        if self.parameters["filter.classes"]:
            self.add_output(PointCloud2, "~/filtered_points", self._filter)
        self.add_output(Image, "~/label_image", lambda it: self._image(it, it.labels.label))
        self.add_output(Image, "~/confidence_image", lambda it: self._image(it, np.rint(it.labels.confidence * 255)))
        self.overlay = self.add_output(Image, "~/overlay", self._draw, late=True)
        self.add_output(DiagnosticStatus, "~/scan_info", self._describe, late=True)
        self._space_publisher = self.create_publisher(String, "~/label_space", qos.LATCHED)

    def load(self) -> None:
        """Load the model and run it once, so that the first scan finds everything ready."""
        from cmp_seg_ros.segmenter import Segmenter
        from cmp_seg_ros.waffleiron.samples import room

        p = self.parameters
        start = time.monotonic()
        segmenter = Segmenter.from_bundle(
            p["model"],
            p["engine"],
            label_space=p["label_space"] or None,
            probabilities=p["entropy"] or p["output_profile"] in point_cloud2.WITH_PROBABILITIES,
            **self.sensors.for_segmenter(),
        )
        if p["threads"] and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(p["threads"])
        self.space: LabelSpace = segmenter.label_space
        self._filtered = filtered_ids(self.space, p["filter.classes"])
        self._announce()
        xyz = room()  # without intensity, so that no statistics are learnt from it
        cloud = point_cloud2.encode({axis: xyz[:, i] for i, axis in enumerate("xyz")}, (1, len(xyz)))
        message = cdr.deserialize(cdr.serialize_cloud(cloud, cdr.header()), cdr.POINT_CLOUD2)
        labels = segmenter(point_cloud2.decode(message))
        point_cloud2.encode_labelled(message, labels, self.space, p["output_profile"], p["entropy"])
        if self.sensors.unknown:
            self.get_logger().info("no extrinsics of the lidar are given: it is taken as upright (z up)")
        self.rate = Rate(segmenter.voxel_size, p, self.report)
        self.segmenter = segmenter
        self.get_logger().info(
            f"ready after {time.monotonic() - start:.1f} s: model {p['model']}, engine {segmenter.engine}, "
            f"label space {segmenter.label_space.name}"
        )

    def _announce(self) -> None:
        """Publish the label space; also as vision_msgs/LabelInfo where that is installed."""
        self._space_publisher.publish(String(data=self.space.to_yaml()))
        try:
            from vision_msgs.msg import LabelInfo, VisionClass
        except ImportError:
            return
        header, least = Header(stamp=self.get_clock().now().to_msg()), self.parameters["min_confidence"]
        self._label_info = self.create_publisher(LabelInfo, "~/label_info", qos.LATCHED)
        self._label_info.publish(label_info.encode(self.space, least, header, LabelInfo, VisionClass))

    # From a scan to its labels, in the worker's thread.

    def process(self, arrival: Arrival, clock: Stopwatch) -> Labelled:
        """Label a scan."""
        assert self.segmenter is not None
        message, scan = self._decode(arrival)
        clock.lap("decode")
        self._level(scan)
        self.segmenter.voxel_size = self.rate.voxel_size
        labels = self._drop_unsure(self.segmenter(scan))
        clock.stages_ms |= labels.stages_ms
        clock.pause()
        stamp = self.sensors.camera_stamp(scan)
        return Labelled(arrival, clock, message, scan, labels, stamp, self.camera.add_scan(stamp))

    def _decode(self, arrival: Arrival) -> tuple[Any, Scan]:
        empty = False
        try:
            message = cdr.deserialize(arrival.data, cdr.POINT_CLOUD2)
            empty = not (message.height and message.width)
            return message, point_cloud2.decode(message, with_time=False)
        except Exception as error:
            raise Rejected("empty" if empty else "malformed") from error

    def _level(self, scan: Scan) -> None:
        """With extrinsics from TF: set the rotation that turns scans upright. Raises NotYet."""
        assert self.segmenter is not None
        if not self.sensors.from_tf:
            return
        T_base_lidar = self.sensors.T_base_lidar(scan.frame_id)
        if T_base_lidar is not None:
            self.segmenter.rotation = T_base_lidar[:3, :3].astype(np.float32)
            return
        missing = f"TF has no transform from {scan.frame_id} to {self.parameters['base_frame']}"
        if self.parameters["wait_for_tf"]:
            self.report.note("no_transform", f"{missing}; holding scans until it has")
            raise NotYet
        self.report.note("no_transform", f"{missing}; taking the lidar as upright")

    def _drop_unsure(self, labels: Labels) -> Labels:
        least = self.parameters["min_confidence"]
        if least <= 0:
            return labels
        return replace(labels, label=np.where(labels.confidence < least, np.uint8(UNLABELLED), labels.label))

    def settled(self, labelled: Labelled) -> bool:
        """Whether the image for the overlay is there, or late."""
        return not self.overlay.wanted or self.camera.decided(labelled.stamp, labelled.arrival.time)

    def finish(self, labelled: Labelled) -> None:
        """Report what is unusual about a scan, join its image, and add its timing."""
        assert self.segmenter is not None
        scan, labels = labelled.scan, labelled.labels
        returns = int(np.count_nonzero(scan.valid()))
        topic = self.inputs.main.topic
        if labelled.backwards:
            text = f"stamps on {topic} went back in time (a bag that starts again?); going on"
            self.report.note("time_backwards", text, harmless=True)
        if scan.stamp == 0:
            text = f"clouds on {topic} have no stamp, so no image can be joined; set the driver's clock"
            self.report.note("zero_stamp", text)
        for remark in chain(
            remarks(scan, labels, returns, f"a cloud on {topic}", self.segmenter.preprocess),
            implausible(scan, labels, not self.sensors.unknown, f"clouds on {topic}"),
            self.unfamiliar(labels, f"a cloud on {topic}"),
            self.strange_intensity(labels, f"a cloud on {topic}"),
        ):
            self.report.note(remark.kind, remark.text, harmless=remark.kind in HARMLESS)
        if self.sensors.unknown:
            self.level_check(scan, returns)
        labelled.match = self.camera.match(labelled.stamp)
        self.publish_late(labelled)
        self.rate.add(labelled.arrival, labels, labelled.clock.busy)

    # Outputs.

    def _encode(self, labelled: Labelled) -> bytes:
        message, p = labelled.message, self.parameters
        cloud = point_cloud2.encode_labelled(message, labelled.labels, self.space, p["output_profile"], p["entropy"])
        return cdr.serialize_cloud(cloud, message.header)

    def _filter(self, labelled: Labelled) -> bytes:
        """The points that return, without those of some classes, or those alone."""
        labels, p = labelled.labels, self.parameters
        named = self._filtered[labels.label] & (labels.confidence >= p["filter.min_confidence"])
        chosen = named if p["filter.keep"] else labelled.scan.valid() & ~named
        return cdr.serialize_cloud(point_cloud2.encode_chosen(labelled.message, chosen), labelled.message.header)

    def _image(self, labelled: Labelled, values: UInt8 | Float32) -> bytes:
        """(N,) values from 0 to 255 as an image of the cloud's shape. Raises UserError."""
        height, width = labelled.scan.shape
        if height == 1:
            raise UserError("the clouds are not organised (height 1); have the driver publish rows and columns")
        header, image = labelled.message.header, cdr.message_class(cdr.IMAGE)
        return cdr.serialize(
            images.encode(values.astype(np.uint8).reshape(height, width), "mono8", header, image), cdr.IMAGE
        )

    def _draw(self, labelled: Labelled) -> bytes | None:
        if labelled.match is None:
            return None
        image = self.camera.draw(labelled.match.image, labelled.scan, labelled.labels.label, self.space.palette)
        labelled.clock.lap("overlay")
        return image

    def _describe(self, labelled: Labelled) -> DiagnosticStatus:
        """How the scan was labelled."""
        assert self.segmenter is not None
        scan, labels, match = labelled.scan, labelled.labels, labelled.match
        values = {
            "stamp_ns": scan.stamp,
            "seq": labelled.arrival.number,
            "points": len(scan),
            "labelled": np.count_nonzero(labels.label != UNLABELLED),
            "voxels": labels.voxels,
            "voxel_size": repr(float(labels.voxel_size)),  # in full, so that the scan can be labelled again just so
            "model": self.parameters["model"],
            "engine": self.segmenter.engine,
            "unlikeness": labels.unlikeness,
            "intensity_unlikeness": labels.intensity_unlikeness,
            "strange_intensity": labels.strange_intensity,
            "image_offset_ms": match and match.offset * 1e-6,
        } | {f"ms.{stage}": milliseconds for stage, milliseconds in labelled.clock.stages_ms.items()}
        return diagnostics.status(
            f"{self.get_fully_qualified_name()}: scan", diagnostics.OK, "labelled", scan.frame_id, values
        )

    # Diagnostics.

    def values(self) -> dict[str, Any]:
        """The model, the rate keeper, and how many scans have an image."""
        values = {"model": self.parameters["model"]}
        if self.segmenter is None:
            return values
        values |= {"engine": self.segmenter.engine, "label_space": self.space.name}
        return values | self.rate.values | self.camera.values()

    def problems(self) -> list[Problem]:
        """No images, or a rate that is not held."""
        found = [self.camera.problem(self.overlay.wanted), self.rate.too_slow]
        return [Problem(diagnostics.WARN, message) for message in found if message]

    def clean_up(self) -> None:
        """End, the level check too."""
        super().clean_up()
        self.level_check.close()


def filtered_ids(space: LabelSpace, names: str) -> Bool:
    """(256,) whether an id is that of one of the classes, which are separated by commas. Raises UserError."""
    chosen = np.zeros(256, np.bool_)
    for name in filter(None, map(str.strip, names.split(","))):
        if name not in space.names:
            known = ", ".join(space.names)
            raise UserError(f"filter.classes has '{name}', which is no class of label space {space.name}: {known}")
        chosen[space.ids[space.names.index(name)]] = True
    return chosen


def main() -> None:
    """Entry point."""
    node.main(NAME, SegmentationNode, __doc__ or "", PARAMETERS)


if __name__ == "__main__":
    main()
