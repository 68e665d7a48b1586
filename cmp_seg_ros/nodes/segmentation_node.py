"""Labels every lidar scan: PointCloud2 in, labelled PointCloud2 out.

    segmentation_node --ros-args -r points:=/lidar/points -p calibration_file:=robot.yaml

The callbacks only store. A worker takes the newest scan, labels it with the `Segmenter` and publishes; scans that came
meanwhile are dropped, and counted. What becomes of every scan stands in /diagnostics, how each was labelled in
~/scan_info.
"""

import os
import re
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import String

from cmp_seg_ros.bundle import DEFAULT_BUNDLE
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import Calibration
from cmp_seg_ros.ros import cdr, diagnostics, images, overlay, point_cloud2, qos, runner
from cmp_seg_ros.ros.camera_view import CameraView
from cmp_seg_ros.ros.parameters import Parameter, Parameters, command_line
from cmp_seg_ros.ros.synchroniser import Match, Synchroniser
from cmp_seg_ros.ros.transforms import TfExtrinsics
from cmp_seg_ros.scan import UNLABELLED, Labels, Scan

if TYPE_CHECKING:
    from cmp_seg_ros.segmenter import Segmenter

NAME = "segmentation_node"
PARAMETERS = [
    Parameter("model", DEFAULT_BUNDLE, "Model bundle: a folder, or a name in models/"),
    Parameter("engine", "auto", "What runs the network; auto takes the fastest that is right on this machine"),
    Parameter("label_space", "", "Label space to answer in, by name or file; empty: that of the bundle"),
    Parameter(
        "output_profile",
        "default",
        "Layout of the labelled cloud: default keeps all fields of the input; the others suit other readers",
        ("default", "hydra", "autoware"),
    ),
    Parameter(
        "min_confidence",
        0.0,
        "Points whose label is less probable become unlabelled (255)",
        (0.0, 1.0),
        read_only=False,
    ),
    Parameter("calibration_file", "", "Calibration of the robot's sensors; empty: the lidar is taken as upright"),
    Parameter("lidar_name", "", "The lidar's name in the calibration file; may be empty if it has only one"),
    Parameter("camera_name", "", "The camera's name in the calibration file; may be empty if it has only one"),
    Parameter("extrinsics", "file", "Where the sensors' poses come from", ("file", "tf", "none")),
    Parameter("base_frame", "base_link", "Frame with z up, for extrinsics from tf"),
    Parameter(
        "sync_deadline",
        0.1,
        "Seconds: the most that an image may be apart from a scan, and the longest that an overlay waits for it",
        (0.0, 5.0),
        read_only=False,
    ),
    Parameter(
        "input_reliability",
        "auto",
        "Quality of service of the inputs; auto is reliable until a publisher offers only best effort",
        ("auto", "reliable", "best_effort"),
    ),
    Parameter("image_transport", "raw", "compressed subscribes to image/compressed", ("raw", "compressed")),
    Parameter(
        "only_when_subscribed", False, "Label only while somebody subscribes to an output; other scans are dropped"
    ),
    Parameter("overlay_point_size", 4, "Side in pixels of a point in ~/overlay", (1, 50), read_only=False),
    Parameter("overlay_opacity", 0.8, "Opacity of the points in ~/overlay", (0.0, 1.0), read_only=False),
    Parameter("threads", 0, "Threads of the engine; 0: as many as it sees fit", (0, 256)),
]
FEW_RETURNS = 1000  # too few to tell whether the lidar is upright
SILENCE = 3.0  # seconds without a scan that are worth a warning
PLAUSIBLE_AGE_MS = 60e3  # older stamps are of another clock, as when a bag is played as it was recorded


@dataclass(frozen=True)
class Arrival:
    """A scan as it came: serialised, with its number and the monotonic time in seconds."""

    data: bytes
    number: int
    time: float


@dataclass(frozen=True)
class Labelled:
    """A labelled and published scan, whose image may still be on its way."""

    arrival: Arrival
    scan: Scan
    labels: Labels
    stages_ms: dict[str, float]


class SegmentationNode(Node):
    """The node. `done` is its exit status once it has given up. Raises UserError for wrong parameters."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self.done: int | None = None
        self.parameters = Parameters(self, PARAMETERS)
        p = self.parameters
        if p["threads"]:  # before an engine's runtime is imported
            for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
                os.environ[variable] = str(p["threads"])
        calibration = Calibration()
        if p["extrinsics"] == "file" and p["calibration_file"]:
            calibration = Calibration.load(p["calibration_file"])
        self.lidar = calibration.lidar(p["lidar_name"]) if calibration.lidars or p["lidar_name"] else None
        self.tf = TfExtrinsics(self) if p["extrinsics"] == "tf" else None
        camera = calibration.camera(p["camera_name"]) if calibration.cameras or p["camera_name"] else None
        self.view = CameraView(camera, self.tf)
        self.segmenter: Segmenter | None = None

        self.tally = diagnostics.Tally()
        self.throttle = diagnostics.Throttle()
        self.synchroniser: Synchroniser[bytes] = Synchroniser(p["sync_deadline"])
        self.inputs: dict[str, qos.Input] = {}

        self.cloud_publisher = self.create_publisher(PointCloud2, "~/labelled_points", qos.OUTPUT)
        self.info_publisher = self.create_publisher(DiagnosticStatus, "~/scan_info", qos.OUTPUT)
        self.overlay_publisher = self.create_publisher(Image, "~/overlay", qos.OUTPUT)
        self.space_publisher = self.create_publisher(String, "~/label_space", qos.LATCHED)
        self.diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", qos.OUTPUT)

        self._changed = threading.Condition()  # guards the synchroniser and these three
        self._newest: Arrival | None = None
        self._last_arrival = time.monotonic()
        self._closing = False

        self._reported: Counter[str] = Counter()  # what the last diagnostics said
        self._silent = False
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # turns also where a simulated time stands still
        self._start_timer = self.create_timer(0.02, self._subscribe_when_ready, clock=steady)
        self.create_timer(1.0, self.publish_diagnostics, clock=steady)
        self.publish_diagnostics()

        self._waiting: Labelled | None = None  # this and the next are the worker's own
        self._level_check: threading.Thread | None = None
        self._worker = threading.Thread(target=self._run_worker, name="worker")
        self._worker.start()

    # The callbacks, in the executor's thread: they only store.

    def _on_points(self, data: bytes) -> None:
        with self._changed:
            number = self.tally.receive(superseded=self._newest is not None)
            self._last_arrival = time.monotonic()
            self._newest = Arrival(data, number, self._last_arrival)
            self._changed.notify()

    def _on_image(self, data: bytes) -> None:
        with self._changed:
            self.synchroniser.add_image(cdr.stamp_ns(data), data, time.monotonic())
            self._changed.notify()

    def _on_camera_info(self, data: bytes) -> None:
        self.view.camera_info = data

    # The worker.

    def _run_worker(self) -> None:
        try:
            self._load()
            while (arrival := self._next_scan()) is not None:
                self._label(arrival)
        except UserError as error:
            self.get_logger().fatal(str(error))
            self.done = 1
        except Exception as error:
            self.get_logger().fatal(f"the worker ended unexpectedly: {type(error).__name__}: {error}")
            self.done = 1

    def _load(self) -> None:
        """Load the model, run it once, and only then subscribe: the first scan finds everything ready."""
        from cmp_seg_ros.segmenter import Segmenter

        p = self.parameters
        start = time.monotonic()
        segmenter = Segmenter.from_bundle(
            p["model"],
            p["engine"],
            T_base_lidar=np.array(self.lidar.T_base_lidar) if self.lidar else None,
            label_space=p["label_space"] or None,
            intensity_mean=self.lidar.intensity_mean if self.lidar else None,
            intensity_std=self.lidar.intensity_std if self.lidar else None,
        )
        if p["threads"] and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(p["threads"])
        rehearse(segmenter)
        self.space_publisher.publish(String(data=segmenter.label_space.to_yaml()))
        self._publish_label_info(segmenter)
        if self.lidar is None and self.tf is None:
            self.get_logger().info("no extrinsics of the lidar are given: it is taken as upright (z up)")
        self.segmenter = segmenter
        self.get_logger().info(
            f"ready after {time.monotonic() - start:.1f} s: model {p['model']}, engine {segmenter.engine}, "
            f"label space {segmenter.label_space.name}"
        )

    def _subscribe_when_ready(self) -> None:
        if self.segmenter is None:
            return
        self._start_timer.cancel()
        self._last_arrival = time.monotonic()  # silence counts from here
        reliability = self.parameters["input_reliability"]
        compressed = self.parameters["image_transport"] == "compressed"
        image_topic = self.resolve_topic_name("image") + "/compressed" if compressed else "image"

        def lost(count: int) -> None:
            self.tally.note("lost", count)

        self.inputs = {
            "camera_info": qos.Input(self, CameraInfo, "camera_info", self._on_camera_info, reliability, 2),
            "image": qos.Input(
                self, CompressedImage if compressed else Image, image_topic, self._on_image, reliability
            ),
            "points": qos.Input(self, PointCloud2, "points", self._on_points, reliability, on_lost=lost),
        }

    def _next_scan(self) -> Arrival | None:
        """Wait for the newest scan, and meanwhile for the image of the last one; None at the end."""
        while True:
            with self._changed:
                over = self._closing or self._newest is not None
                if self._waiting is None or not (over or self._image_decided(self._waiting)):
                    if self._closing:
                        return None
                    if self._newest is not None:
                        arrival, self._newest = self._newest, None
                        return arrival
                    self._changed.wait(None if self._waiting is None else self.synchroniser.deadline)
                    continue
                labelled, self._waiting = self._waiting, None
                match = self.synchroniser.match(self._stamp(labelled.scan))
            self._finish(labelled, match)

    def _label(self, arrival: Arrival) -> None:
        """From the message that came to the message that goes."""
        assert self.segmenter is not None
        outputs = (self.cloud_publisher, self.overlay_publisher, self.info_publisher)
        if self.parameters["only_when_subscribed"] and not any(p.get_subscription_count() for p in outputs):
            self.tally.drop("unsubscribed")
            return
        clock = Stopwatch(arrival.time)
        clock.lap("wait")
        reason = "malformed"
        try:
            msg = cdr.deserialize(arrival.data, cdr.POINT_CLOUD2)
            if not (msg.height and msg.width):
                reason = "empty"
            scan = point_cloud2.decode(msg)
            clock.lap("decode")
            reason = "failed"
            self._level(scan)
            labels = self._drop_unsure(self.segmenter(scan))
            clock.skip()  # the segmenter has its own stages
            cloud = point_cloud2.encode_labelled(
                msg, labels, self.segmenter.label_space, self.parameters["output_profile"]
            )
            out = cdr.serialize_cloud(cloud, msg.header)
            clock.lap("encode")
            self.cloud_publisher.publish(out)
            clock.lap("publish")
        except Exception as error:
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            self.tally.drop(reason)
            self._warn(f"scan {arrival.number} on {self.inputs['points'].topic} is dropped: {kind}{error}")
            return
        stages = clock.stages_ms | labels.stages_ms | {"total": clock.total_ms}
        age_ms = (self.get_clock().now().nanoseconds - scan.stamp) * 1e-6
        if 0 <= age_ms < PLAUSIBLE_AGE_MS:
            stages["age"] = age_ms
        self.tally.publish(stages)
        self._remark(scan, labels)
        self._waiting = Labelled(arrival, scan, labels, stages)

    def _level(self, scan: Scan) -> None:
        """With extrinsics from TF: have the segmenter turn scans upright, once the transform is there."""
        if self.tf is None or self.segmenter is None or self.segmenter.rotation is not None:
            return
        base = self.parameters["base_frame"]
        T_base_lidar = self.tf.lookup(base, scan.frame_id)
        if T_base_lidar is None:
            self._note(
                "no_transform", f"TF has no transform from {scan.frame_id} to {base}; taking the lidar as upright"
            )
        else:
            self.segmenter.rotation = T_base_lidar[:3, :3].astype(np.float32)

    def _drop_unsure(self, labels: Labels) -> Labels:
        least = self.parameters["min_confidence"]
        if least <= 0:
            return labels
        return replace(labels, label=np.where(labels.confidence < least, np.uint8(UNLABELLED), labels.label))

    def _remark(self, scan: Scan, labels: Labels) -> None:
        """Say what is odd about a scan that was labelled all the same."""
        assert self.segmenter is not None
        with self._changed:
            self.synchroniser.deadline = self.parameters["sync_deadline"]
            backwards = self.synchroniser.add_scan(self._stamp(scan))
        topic, returns = self.inputs["points"].topic, int(scan.valid().sum())
        if backwards:
            self._note("time_backwards", f"stamps on {topic} went back in time (a bag that starts again?); going on")
        if scan.stamp == 0:
            self._note(
                "zero_stamp", f"clouds on {topic} have no stamp, so no image can be joined; set the driver's clock"
            )
        if returns == 0:
            self._note("no_returns", f"a cloud on {topic} has no valid point (all NaN or zero); check the sensor")
        elif returns < (least := self.segmenter.preprocess.neighbours):
            self._note("few_points", f"a cloud on {topic} has {returns} valid points, fewer than {least} neighbours")
        elif not labels.confidence.any():
            self._note("outside_view", f"no point of a cloud on {topic} is inside the model's field of view; units?")
        if self._level_check is None and returns > FEW_RETURNS and self.lidar is None and self.tf is None:
            self._level_check = threading.Thread(target=self._check_level, args=(scan,), name="level check")
            self._level_check.start()  # half a second of work that no scan should wait for
        if scan.intensity is None:
            self._note("no_intensity", f"clouds on {topic} have no intensity; labelling without it")

    def _check_level(self, scan: Scan) -> None:
        """Say so where a lidar that is taken as upright is not: its labels would suffer."""
        from cmp_seg_ros.evaluation.planes import MAX_TILT, RADII, surface_normals, thin, vertical

        normals = surface_normals(thin(scan.xyz[scan.valid()].astype(np.float64), RADII[0] / 3)[0])
        up = vertical(normals[np.isfinite(normals).all(axis=1)])
        tilt = float(np.degrees(np.arccos(np.clip(up[2], -1, 1))))
        if tilt > MAX_TILT:
            self._note(
                "tilted",
                f"the lidar leans by about {tilt:.0f} degrees, by the floor and walls that it sees, but is taken as "
                "upright; give T_base_lidar in a calibration_file",
            )

    # The image of a labelled scan.

    def _stamp(self, scan: Scan) -> int:
        """The scan's stamp by the cameras' clock; 0 where it has none."""
        offset = round(self.lidar.time_offset * 1e9) if self.lidar else 0
        return scan.stamp + offset if scan.stamp else 0

    def _image_decided(self, labelled: Labelled) -> bool:
        if not self.overlay_publisher.get_subscription_count():
            return True
        return self.synchroniser.decided(self._stamp(labelled.scan), labelled.arrival.time, time.monotonic())

    def _finish(self, labelled: Labelled, match: Match[bytes] | None) -> None:
        """Publish what is known of a scan, and the overlay where there is an image and somebody who looks."""
        assert self.segmenter is not None
        stages = dict(labelled.stages_ms)
        if match is not None:
            clock = Stopwatch()
            try:
                self.view.check()
                if self.overlay_publisher.get_subscription_count():
                    self._publish_overlay(labelled, match.image)
                    stages["overlay"] = clock.total_ms
            except Exception as error:
                kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
                self._note("no_overlay", f"no overlay: {kind}{error}")
        scan, labels = labelled.scan, labelled.labels
        values = {
            "stamp_ns": scan.stamp,
            "seq": labelled.arrival.number,
            "points": len(scan),
            "labelled": int((labels.label != UNLABELLED).sum()),
            "voxels": labels.voxels,
            "voxel_size": float(labels.voxel_size),
            "model": self.parameters["model"],
            "engine": self.segmenter.engine,
            "image_offset_ms": match.offset * 1e-6 if match else None,
        } | {f"ms.{stage}": milliseconds for stage, milliseconds in stages.items()}
        name = f"{self.get_name()}: scan"
        self.info_publisher.publish(diagnostics.status(name, diagnostics.OK, "labelled", scan.frame_id, values))

    def _publish_overlay(self, labelled: Labelled, data: bytes) -> None:
        assert self.segmenter is not None
        p = self.parameters
        msg = cdr.deserialize(data, cdr.COMPRESSED_IMAGE if p["image_transport"] == "compressed" else cdr.IMAGE)
        drawn = overlay.draw(
            image := images.to_rgb(msg),
            labelled.scan.xyz,
            labelled.labels.label,
            self.segmenter.label_space.palette,
            self.view.camera(image.shape[1], image.shape[0]),
            self.view.T_camera_lidar(msg.header.frame_id, labelled.scan.frame_id),
            p["overlay_point_size"],
            p["overlay_opacity"],
        )
        out = images.encode(drawn, "rgb8", msg.header, cdr.message_class(cdr.IMAGE))
        self.overlay_publisher.publish(cdr.serialize(out, cdr.IMAGE))

    # What the node says about itself.

    def _note(self, what: str, message: str) -> None:
        self.tally.note(what)
        self._warn(message)

    def _warn(self, message: str) -> None:
        """Log a warning; the same one, whatever its numbers, only now and then."""
        held_back = self.throttle(re.sub(r"\d+", "", message))
        if held_back is not None:
            self.get_logger().warning(message + (f" ({held_back} more like it)" if held_back else ""))

    def _publish_label_info(self, segmenter: "Segmenter") -> None:
        """~/label_info, for readers of vision_msgs, where that is installed."""
        try:
            from vision_msgs.msg import LabelInfo, VisionClass
        except ImportError:
            return
        classes = [VisionClass(class_id=c.id, class_name=c.name) for c in segmenter.label_space.classes]
        self.label_info_publisher = self.create_publisher(LabelInfo, "~/label_info", qos.LATCHED)
        self.label_info_publisher.publish(LabelInfo(class_map=classes, threshold=self.parameters["min_confidence"]))

    def publish_diagnostics(self) -> None:
        """Publish /diagnostics: the counters, the rate and the latencies, and what is wrong at present."""
        snapshot = self.tally.snapshot()
        level, message = self._health(snapshot)
        values = diagnostics.flat(snapshot) | {"model": self.parameters["model"]}
        if self.segmenter is not None:
            values |= {"engine": self.segmenter.engine, "label_space": self.segmenter.label_space.name}
        if self.inputs:
            values |= {"topic": self.inputs["points"].topic, "publishers": self.inputs["points"].publishers}
            values |= {"reliability": self.inputs["points"].reliability}
            with self._changed:
                offset = self.synchroniser.median_offset
                values["image.match_rate"] = self.synchroniser.match_rate
                values["image.median_offset_ms"] = None if offset is None else offset * 1e-6
        array = DiagnosticArray(status=[diagnostics.status(f"{self.get_name()}: scans", level, message, "", values)])
        array.header.stamp = self.get_clock().now().to_msg()
        self.diagnostics_publisher.publish(array)

    def _health(self, snapshot: dict[str, Any]) -> tuple[bytes, str]:
        """Level and one line: what went wrong since the last report."""
        now = Counter(snapshot["dropped_by_reason"]) + Counter({"lost": snapshot["notes"].get("lost", 0)})
        fresh = now - self._reported
        self._reported = now
        if not self.inputs:
            return diagnostics.WARN, f"loading the model {self.parameters['model']}"
        silent, self._silent = self._silent, time.monotonic() - self._last_arrival > SILENCE
        if self._silent:
            message = self._explain_silence()
            if not silent:
                self._warn(message)
            return diagnostics.WARN, message
        problems = [f"{count} {reason}" for reason, count in fresh.items() if reason != "superseded"]
        if problems:
            return (diagnostics.ERROR if fresh["failed"] else diagnostics.WARN), f"scans lost: {', '.join(problems)}"
        return diagnostics.OK, f"labelling {snapshot['rate_hz']:.1f} of {snapshot['in_rate_hz']:.1f} scans a second"

    def _explain_silence(self) -> str:
        points = self.inputs["points"]
        if points.publishers:
            message = f"no cloud came on {points.topic} for {SILENCE:.0f} s, though it has a publisher"
        else:
            clouds = "sensor_msgs/msg/PointCloud2"
            others = [topic for topic, types in self.get_topic_names_and_types() if clouds in types]
            others = [topic for topic in others if topic not in (points.topic, self.cloud_publisher.topic_name)]
            message = f"nobody publishes {points.topic}; " + (
                f"clouds are on {', '.join(others)}: remap with -r points:={others[0]}"
                if others
                else "nor other clouds"
            )
        return message

    def close(self) -> None:
        """Finish the scan under way, account for the one that waits, and report for the last time."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._worker.join()
        if self._level_check is not None:
            self._level_check.join()
        if self._newest is not None:
            self.tally.drop("shutdown")
            self._newest = None
        self.publish_diagnostics()


class Stopwatch:
    """Milliseconds by stage, from now or from a monotonic time in seconds."""

    def __init__(self, start: float | None = None) -> None:
        self.stages_ms: dict[str, float] = {}
        self._start = self._last = time.monotonic() if start is None else start

    def lap(self, stage: str) -> None:
        """End a stage."""
        now = time.monotonic()
        self.stages_ms[stage] = 1e3 * (now - self._last)
        self._last = now

    def skip(self) -> None:
        """End a stage that is measured elsewhere."""
        self._last = time.monotonic()

    @property
    def total_ms(self) -> float:
        return 1e3 * (time.monotonic() - self._start)


def empty_room(points: int = 16384) -> Scan:
    """A scan of a bare room. It has no intensity, so that no statistics are learnt from it."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(points, 3)).astype(np.float32)
    half = np.array([4.0, 5.0, 1.5], np.float32)  # metres
    reach = (half / np.abs(directions)).min(axis=1, keepdims=True)
    return Scan(directions * reach)


def rehearse(segmenter: "Segmenter") -> None:
    """Take a scan all the way once, so that the first real one finds compiled, imported, allocated what it needs."""
    room = empty_room()
    cloud = point_cloud2.encode({axis: room.xyz[:, i] for i, axis in enumerate("xyz")}, room.shape)
    msg = cdr.deserialize(cdr.serialize_cloud(cloud, cdr.header()), cdr.POINT_CLOUD2)
    labels = segmenter(point_cloud2.decode(msg))
    cdr.serialize_cloud(point_cloud2.encode_labelled(msg, labels, segmenter.label_space), msg.header)


def main() -> None:
    """Entry point."""
    command_line(NAME, __doc__ or "", PARAMETERS).parse_args(remove_ros_args(sys.argv)[1:])
    sys.exit(runner.run(NAME, SegmentationNode))


if __name__ == "__main__":
    main()
