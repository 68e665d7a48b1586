"""Labels every lidar scan: PointCloud2 in, labelled PointCloud2 out.

    segmentation_node --ros-args -r points:=/lidar/points -p calibration_file:=robot.yaml

The callbacks only store. A worker takes the newest scan, labels it with the `Segmenter` and publishes; scans that came
meanwhile are dropped, and counted. What becomes of every scan stands in /diagnostics, how each was labelled in
~/scan_info. Where the machine cannot hold the target rate voxels become coarser. docs/node.md tells more.
"""

import os
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.messages import cdr, point_cloud2
from cmp_seg_ros.nodes.segmentation.inputs import Arrival, Inputs, Labelled
from cmp_seg_ros.nodes.segmentation.outputs import Outputs
from cmp_seg_ros.nodes.segmentation.parameters import PARAMETERS
from cmp_seg_ros.nodes.segmentation.rate import Rate
from cmp_seg_ros.nodes.segmentation.rehearsal import rehearse
from cmp_seg_ros.nodes.segmentation.remarks import LevelCheck, count_returns, remarks
from cmp_seg_ros.nodes.segmentation.report import Report
from cmp_seg_ros.nodes.segmentation.sensors import Sensors
from cmp_seg_ros.nodes.segmentation.stopwatch import Stopwatch
from cmp_seg_ros.ros import runner
from cmp_seg_ros.ros.parameters import Parameters, command_line
from cmp_seg_ros.ros.synchroniser import Match
from cmp_seg_ros.scan import UNLABELLED, Labels, Scan

if TYPE_CHECKING:
    from cmp_seg_ros.segmenter import Segmenter

NAME = "segmentation_node"
WORKER = f"{NAME}_worker"
LOADING = 3.0  # seconds that the end of the node waits for a model that is being loaded; an engine may take minutes
PLAUSIBLE_AGE_MS = 60e3  # older stamps are of another clock, as when a bag is played as it was recorded


class SegmentationNode(Node):
    """The node. `done` is its exit status once it has given up. Raises UserError for wrong parameters."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self.done: int | None = None
        self.parameters = Parameters(self, PARAMETERS)
        if threads := self.parameters["threads"]:  # before an engine's runtime is imported
            for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
                os.environ[variable] = str(threads)
        self.sensors = Sensors(self, self.parameters)
        self.report = Report(self)
        self.outputs = Outputs(self, self.parameters)
        self.inputs = Inputs(
            self, self.parameters, self.report.tally, self.sensors.view, image_wanted=self.outputs.overlay_wanted
        )
        self.level_check = LevelCheck(self.report.note)
        self.segmenter: Segmenter | None = None  # this and the next are there once the model is loaded
        self.rate: Rate | None = None

        self._silent = False
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # turns also where a simulated time stands still
        self._start_timer = self.create_timer(0.02, self._subscribe_when_ready, clock=steady)
        self.create_timer(1.0, self.publish_diagnostics, clock=steady)
        self.publish_diagnostics()
        self._worker = threading.Thread(target=self._work, name=WORKER, daemon=True)
        self._worker.start()

    def _subscribe_when_ready(self) -> None:
        if self.rate is not None:
            self._start_timer.cancel()
            self.inputs.subscribe()

    # The worker.

    def _work(self) -> None:
        try:
            segmenter, rate = self._load()
            self._label_scans(segmenter, rate)
        except UserError as error:
            self.get_logger().fatal(str(error))
            self.done = 1
        except Exception as error:
            self.get_logger().fatal(f"the worker ended unexpectedly: {type(error).__name__}: {error}")
            self.done = 1

    def _load(self) -> tuple["Segmenter", Rate]:
        """Load the model, run it once, and only then subscribe: the first scan finds everything ready."""
        from cmp_seg_ros.segmenter import Segmenter

        p = self.parameters
        start = time.monotonic()
        segmenter = Segmenter.from_bundle(
            p["model"],
            p["engine"],
            label_space=p["label_space"] or None,
            probabilities=p["output_profile"] in point_cloud2.WITH_PROBABILITIES,
            **self.sensors.for_segmenter(),
        )
        if p["threads"] and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(p["threads"])
        self.outputs.announce(segmenter.label_space)
        rehearse(segmenter, self.outputs)
        if self.sensors.unknown:
            self.get_logger().info("no extrinsics of the lidar are given: it is taken as upright (z up)")
        self.segmenter, self.rate = segmenter, Rate(segmenter.voxel_size, p, self.report)
        self.get_logger().info(
            f"ready after {time.monotonic() - start:.1f} s: model {p['model']}, engine {segmenter.engine}, "
            f"label space {segmenter.label_space.name}"
        )
        return self.segmenter, self.rate

    def _label_scans(self, segmenter: "Segmenter", rate: Rate) -> None:
        """Every scan that is the newest when the last is done, until the node closes."""
        last: Labelled | None = None
        taken = time.monotonic()
        while (arrival := self.inputs.next_scan(last, self._finish)) is not None:
            before, taken = taken, time.monotonic()
            if last is not None:
                rate.add(last, busy=taken - before - self.inputs.waited)
            segmenter.voxel_size = rate.voxel_size
            last = self._label(arrival, segmenter)

    def _label(self, arrival: Arrival, segmenter: "Segmenter") -> Labelled | None:
        """From the message that came to the message that goes; None where nothing can be made of it."""
        tally = self.report.tally
        if self.parameters["only_when_subscribed"] and not self.outputs.wanted():
            tally.drop("unsubscribed")
            return None
        clock = Stopwatch(arrival.time)
        clock.lap("wait")
        reason = "malformed"
        try:
            msg = cdr.deserialize(arrival.data, cdr.POINT_CLOUD2)
            if not (msg.height and msg.width):
                reason = "empty"
            scan = point_cloud2.decode(msg, with_time=False)
            clock.lap("decode")
            reason = "failed"
            self._level(scan, segmenter)
            labels = self._drop_unsure(segmenter(scan))
            clock.skip()  # the segmenter has its own stages
            cloud = self.outputs.encode(msg, labels)
            clock.lap("encode")
            self.outputs.publish_cloud(cloud)
            clock.lap("publish")
        except Exception as error:
            tally.drop(reason)
            self.report.warn(f"scan {arrival.number} on {self._topic} is dropped: {_kind(error)}{error}")
            return None
        stages = clock.stages_ms | labels.stages_ms | {"total": clock.total_ms}
        age_ms = (self.get_clock().now().nanoseconds - scan.stamp) * 1e-6
        if 0 <= age_ms < PLAUSIBLE_AGE_MS:
            stages["age"] = age_ms
        tally.publish(stages)
        stamp = self.sensors.camera_stamp(scan)
        self._remark(scan, labels, self.inputs.add_scan(stamp), segmenter.preprocess.neighbours)
        return Labelled(arrival, scan, labels, stages, stamp)

    def _level(self, scan: Scan, segmenter: "Segmenter") -> None:
        """With extrinsics from TF: have the segmenter turn scans upright, once the transform is there."""
        if not self.sensors.from_tf or segmenter.rotation is not None:
            return
        T_base_lidar = self.sensors.T_base_lidar(scan.frame_id)
        if T_base_lidar is not None:
            segmenter.rotation = T_base_lidar[:3, :3].astype(np.float32)
            return
        base = self.parameters["base_frame"]
        message = f"TF has no transform from {scan.frame_id} to {base}; taking the lidar as upright"
        self.report.note("no_transform", message)

    def _drop_unsure(self, labels: Labels) -> Labels:
        least = self.parameters["min_confidence"]
        if least <= 0:
            return labels
        return replace(labels, label=np.where(labels.confidence < least, np.uint8(UNLABELLED), labels.label))

    def _remark(self, scan: Scan, labels: Labels, backwards: bool, neighbours: int) -> None:
        returns = count_returns(scan, labels)
        for what, message in remarks(scan, labels, returns, backwards, self._topic, neighbours):
            self.report.note(what, message)
        if self.sensors.unknown:
            self.level_check(scan, returns)

    def _finish(self, labelled: Labelled, match: Match[bytes] | None) -> None:
        """Publish what is known of a scan, and the overlay where there is an image and somebody who looks."""
        assert self.segmenter is not None
        stages = dict(labelled.stages_ms)
        if match is not None:
            clock = Stopwatch()
            try:
                self.sensors.view.check()
                if self.outputs.overlay_wanted():
                    self.outputs.publish_overlay(labelled, match.image, self.sensors.view)
                    stages["overlay"] = clock.total_ms
            except Exception as error:
                self.report.note("no_overlay", f"no overlay: {_kind(error)}{error}")
        self.outputs.publish_info(labelled, self.segmenter.engine, match.offset if match else None, stages)

    @property
    def _topic(self) -> str:
        return self.inputs.points.topic if self.inputs.points is not None else ""

    # What the node says about itself.

    def publish_diagnostics(self) -> None:
        """Publish /diagnostics."""
        model = self.parameters["model"]
        values = {"model": model}
        if self.segmenter is not None and self.rate is not None:
            values |= {"engine": self.segmenter.engine, "label_space": self.segmenter.label_space.name}
            values |= self.rate.values
        problem = f"loading the model {model}"
        if self.inputs.points is not None:
            values |= self.inputs.values()
            problem = self.inputs.silence(ours=self.outputs.topic)
            silent, self._silent = self._silent, bool(problem)
            if problem and not silent:
                self.report.warn(problem)
        self.report.publish(values, problem, self.rate.too_slow if self.rate is not None else "")

    def close(self) -> None:
        """Finish the scan under way, account for the one that waits, and report for the last time."""
        self.inputs.close()
        self._worker.join(LOADING if self.rate is None else None)
        if self._worker.is_alive():
            self.get_logger().info("still loading the model, which is broken off")
        self.level_check.close()
        self.inputs.drop_pending()
        self.publish_diagnostics()


def _kind(error: Exception) -> str:
    """What comes before the words of an error that no user can mend."""
    return "" if isinstance(error, UserError) else f"{type(error).__name__}: "


def main() -> None:
    """Entry point."""
    runner.arguments(NAME, command_line(NAME, __doc__ or "", PARAMETERS))
    status = runner.run(NAME, SegmentationNode)
    if any(thread.name == WORKER for thread in threading.enumerate()):  # deep in a compiler: no way to end it in order
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    main()
