"""Fuses labelled clouds into a semantic map, and publishes it as it grows.

    semantic_map_node --ros-args -r labelled_points:=/segmentation_node/labelled_points -r odometry:=/odom

The newest labelled cloud is moved to the fixed frame by odometry or TF, and fused. Map and occupancy grid are latched;
~/save writes them. docs/node.md has more.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nav_msgs.msg import OccupancyGrid
from rclpy.task import Future
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String
from std_srvs.srv import Trigger

from cmp_seg_ros import outputs
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.mapping import files
from cmp_seg_ros.mapping.fusion import VOXEL, Voxels
from cmp_seg_ros.mapping.grid import RESOLUTION, Grid, grid_of
from cmp_seg_ros.mapping.odometry import Motion, check_step, twist
from cmp_seg_ros.mapping.semantic_map import SemanticMap
from cmp_seg_ros.messages import cdr, point_cloud2
from cmp_seg_ros.ros import grids, node, odometry, qos
from cmp_seg_ros.ros.diagnostics import WARN
from cmp_seg_ros.ros.inputs import Arrival
from cmp_seg_ros.ros.node import NotYet, Rejected, WorkerNode
from cmp_seg_ros.ros.odometry import OdometryInput
from cmp_seg_ros.ros.parameters import Parameter
from cmp_seg_ros.ros.report import Problem
from cmp_seg_ros.ros.stopwatch import Stopwatch
from cmp_seg_ros.scan import Labels, Scan

NAME = "semantic_map_node"
STRING = "std_msgs/msg/String"
WAY_STEP, LONGEST_WAY = 0.1, 100_000  # metres between two places of the lidar's way, and their greatest number
PARAMETERS = [
    Parameter("voxel_size", VOXEL, "Of the map's voxels, metres", (0.02, 1.0)),
    Parameter("resolution", RESOLUTION, "Of the grid's cells, metres", (0.02, 1.0)),
    Parameter("radius", 50.0, "Metres around the lidar beyond which the map is forgotten; 0: never", (0.0, 10_000.0)),
    Parameter("map_rate_hz", 0.5, "Times a second that the map is published; 0: never", (0.0, 10.0), read_only=False),
    Parameter("grid_rate_hz", 1.0, "Times a second that the grid is published; 0: never", (0.0, 10.0), read_only=False),
    Parameter("folder", "map", "Where ~/save writes the map"),
    Parameter("label_space", "", "Label space of the clouds, by name or file; empty: as the topic label_space says"),
    *odometry.PARAMETERS,
    *node.PARAMETERS,
]


@dataclass
class Fused:
    """A labelled scan that is in the map."""

    message: Any
    scan: Scan
    labels: Labels
    motion: Motion


class SemanticMapNode(WorkerNode[Fused]):
    """The node. Raises UserError for wrong parameters."""

    work, things = "fusing", "labelled clouds"

    def __init__(self) -> None:
        super().__init__(NAME, PARAMETERS, PointCloud2, "labelled_points")
        self.lock = threading.Lock()  # of the map: the worker fuses, services save
        self.saving = threading.Lock()  # one save at a time
        self.space: LabelSpace | None = None
        self._coming: LabelSpace | None = None
        self.map: SemanticMap | None = None
        self._last: tuple[int, Motion] | None = None
        self._way: deque[tuple[float, float]] = deque(maxlen=LONGEST_WAY)
        self._published = {"map": 0.0, "grid": 0.0}
        self._maps = 0
        self._saved: tuple[SemanticMap | None, int] = None, 0  # the map that was saved last, and its scans then

    def set_up(self) -> None:
        """Add the inputs beside the clouds, and the outputs."""
        p = self.parameters
        self.odometry = OdometryInput(self, p, self.inputs)
        if p["label_space"]:
            self.space = LabelSpace.load(p["label_space"])
        else:
            self.inputs.add(String, "label_space", self._on_space)
        self.add_output(PointCloud2, "~/fused_points", self._encode_scan)
        self._map_publisher = self.create_publisher(PointCloud2, "~/map", qos.LATCHED)
        self._grid_publisher = self.create_publisher(OccupancyGrid, "~/grid", qos.LATCHED)
        self.create_service(Trigger, "~/save", self._on_save)

    def load(self) -> None:
        """Compile the kernels, so that the first cloud finds them ready."""
        space = LabelSpace.load("structural6")
        xyz = np.random.default_rng(0).uniform(1, 2, (64, 3)).astype(np.float32)
        scan = Scan(xyz, time=np.linspace(0, 0.1, 64, dtype=np.float32))
        labels = Labels(np.zeros(64, np.uint8), np.ones(64, np.float32))
        rehearsal = SemanticMap(space, 0.1, 1.0)
        rehearsal.add(scan, labels, Motion(np.eye(4), np.full(6, 0.1)))
        rehearsal.labels_of(scan, labels, Motion(np.eye(4), np.zeros(6)))
        grid_of(rehearsal.still(), space, 0.1)
        self.get_logger().info("ready")

    def _on_space(self, data: bytes) -> None:
        try:
            space = LabelSpace.from_yaml(cdr.deserialize(data, STRING).data, "on topic label_space")
        except UserError as error:
            self.report.note("label_space", str(error))
            return
        self._coming = space  # for the worker

    def _begin(self, why: str) -> None:
        """Save the map and begin a new one. For the worker."""
        if self.map is None:
            return
        self._maps += 1
        folder = Path(f"{self.parameters['folder']}-{self._maps}")
        self.report.note("new_map", f"{why}: a new map begins; the old one is in {folder}")
        try:
            self._save(folder)
        except (OSError, UserError) as error:
            self.report.note("not_saved", f"the old map could not be saved: {error}")
        with self.lock:
            self.map, self._last = None, None
            self._way.clear()

    # From a labelled cloud to the map, in the worker's thread.

    def process(self, arrival: Arrival, clock: Stopwatch) -> Fused:
        """Fuse a labelled cloud."""
        try:
            message = cdr.deserialize(arrival.data, cdr.POINT_CLOUD2)
            scan, labels = point_cloud2.decode(message), point_cloud2.decode_labels(message)
        except UserError as error:
            raise Rejected("malformed") from error
        clock.lap("decode")
        if self._coming is not None:
            if self.space is not None and self._coming.to_yaml() != self.space.to_yaml():
                self._begin("another label space came")
            self.space, self._coming = self._coming, None
        if self.space is None:
            self.report.note(
                "no_label_space", "no label space came on topic label_space yet; holding clouds until one does"
            )
            raise NotYet
        motion = self.odometry.motion(scan.stamp, scan.frame_id)
        if motion is None:
            self.report.note("no_pose", "there is no pose for the stamp of a cloud yet; holding it until there is")
            raise NotYet
        self._check(scan.stamp, motion)
        with self.lock:
            if self.map is None:
                p = self.parameters
                self.map = SemanticMap(self.space, p["voxel_size"], p["radius"] or None)
            self.map.add(scan, labels, motion)
            place = float(motion.start[0, 3]), float(motion.start[1, 3])
            if not self._way or np.hypot(*np.subtract(place, self._way[-1])) > WAY_STEP:
                self._way.append(place)
        clock.lap("fuse")
        return Fused(message, scan, labels, motion)

    def _check(self, stamp: int, motion: Motion) -> None:
        """Begin a new map if the odometry jumps, or time goes back."""
        last, self._last = self._last, (stamp, motion)
        if last is None:
            return
        if stamp < last[0]:
            self._begin("stamps went back in time")
        else:
            try:
                step = twist(np.linalg.inv(last[1].start) @ motion.start)
                check_step(step, (stamp - last[0]) * 1e-9, "a cloud")
            except UserError as error:
                self._begin(str(error).partition(";")[0])
        self._last = stamp, motion

    def finish(self, result: Fused) -> None:
        """Publish map and grid when it is time."""
        now = time.monotonic()
        due = [name for name, last in self._published.items() if self._is_due(name, now - last)]
        if due and self.map is not None:  # only the worker replaces it
            still = self.map.still()
            due = due if len(still) else []  # a cloud cannot be empty; it is due again with the next scan
            for name in due:
                self._published[name] = now
            if "map" in due:
                self._map_publisher.publish(self._encode_map(still, result.message.header))
            if "grid" in due:
                self._grid_publisher.publish(self._encode_grid(self._grid(still), result.scan.stamp))
        self.publish_late(result)

    def _is_due(self, name: str, since: float) -> bool:
        rate = self.parameters[f"{name}_rate_hz"]
        return bool(rate > 0 and since >= 1 / rate)

    def _grid(self, still: Voxels) -> Grid:
        assert self.space is not None
        return grid_of(still, self.space, self.parameters["resolution"])

    # Outputs.

    def _encode_scan(self, result: Fused) -> bytes:
        """The labelled cloud with the labels of the map."""
        assert self.space is not None
        with self.lock:
            labels = result.labels
            if self.map is not None:
                labels = self.map.labels_of(result.scan, labels, result.motion)
        cloud = point_cloud2.encode_labelled(result.message, labels, self.space)
        return cdr.serialize_cloud(cloud, result.message.header)

    def _encode_map(self, still: Voxels, header: Any) -> bytes:
        assert self.space is not None
        columns = files.with_rgb(files.columns_of(still, self.space))
        label = columns.pop("label")
        cloud = point_cloud2.encode(columns | {"label": label}, (1, len(still)))
        stamp = point_cloud2.stamp_ns(header)
        return cdr.serialize_cloud(cloud, cdr.header(stamp, self.odometry.frame))

    def _encode_grid(self, grid: Grid, stamp: int) -> OccupancyGrid:
        return grids.encode(grid.occupancy, grid.origin, grid.resolution, self.odometry.frame, stamp)

    # Saving.

    def clean_up(self) -> None:
        """Say what is lost: a save would take too long for a node that is being stopped."""
        super().clean_up()
        if self.map is not None and self._saved != (self.map, self.map.scans):
            self.get_logger().warning(f"the map of {self.map.scans} scans was not saved; call ~/save before the end")

    async def _on_save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Save in a thread: a large map takes seconds, in which poses and diagnostics go on."""
        folder = Path(self.parameters["folder"]).absolute()
        saved: Future[int] = Future(executor=self.executor)

        def save() -> None:
            try:
                with self.saving:
                    saved.set_result(self._save(folder))
            except (UserError, OSError) as error:
                saved.set_exception(error)

        threading.Thread(target=save, name="save", daemon=True).start()
        try:
            response.success, response.message = True, f"{await saved} voxels saved to {folder}"
        except (UserError, OSError) as error:
            response.success, response.message = False, str(error)
        return response

    def _save(self, folder: Path) -> int:
        """Write cloud, grid and floor plan; returns the number of voxels. Raises UserError or OSError."""
        with self.lock:
            if self.map is None:
                raise UserError("there is no map yet: no labelled cloud with a pose has come")
            still, scans, space = self.map.still(), self.map.scans, self.map.space
            saved = self.map, scans
            way = np.array(self._way).reshape(-1, 2)
        outputs.claim(folder, NAME, (outputs.REPORT, *files.FILES))
        with outputs.writing(folder):
            grid = grid_of(still, space, self.parameters["resolution"])
            files.write_map(folder, still, grid, space, way, f"{scans:,} scans")
            about = {"command": NAME, "finished": True, "scans": scans, "voxels": len(still)}
            outputs.write_report(folder, about)
        self._saved = saved
        return len(still)

    # Diagnostics.

    def values(self) -> dict[str, Any]:
        """How large the map is."""
        topic = {} if self.odometry.topic is None else {"odometry": self.odometry.topic.topic}
        size = 0 if self.map is None else len(self.map.voxels)
        return topic | {"voxels": size, "scans_fused": 0 if self.map is None else self.map.scans}

    def problems(self) -> list[Problem]:
        """An unknown mounting of the lidar."""
        if self.odometry.is_mounted or self.map is None:
            return []
        text = "the mounting of the lidar is not known; it is taken as the robot's base: set calibration_file"
        return [Problem(WARN, text)]


def main() -> None:
    """Entry point."""
    node.main(NAME, SemanticMapNode, __doc__ or "", PARAMETERS)


if __name__ == "__main__":
    main()
