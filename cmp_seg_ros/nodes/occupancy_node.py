"""Turns single images into semantic occupancy: Image and CameraInfo in, occupied voxels out.

    occupancy_node --ros-args -r image:=/camera/image -r camera_info:=/camera/camera_info -p calibration_file:=r.yaml

The newest image is processed; older ones are dropped and counted. Each output is computed only while it has
subscribers, and at most at its own rate. docs/node.md has more.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from nav_msgs.msg import OccupancyGrid
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import ImageCalibration, Transform
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.messages import cdr, images, point_cloud2
from cmp_seg_ros.occupancy.feature_colours import FeatureColours
from cmp_seg_ros.occupancy.grid import FREE, Grid, occupancy_slice
from cmp_seg_ros.occupier import Occupier, Rendered, View, Voxels
from cmp_seg_ros.ros import grids, node
from cmp_seg_ros.ros.camera import Intrinsics
from cmp_seg_ros.ros.diagnostics import WARN
from cmp_seg_ros.ros.inputs import Arrival
from cmp_seg_ros.ros.node import NotYet, Rejected, WorkerNode
from cmp_seg_ros.ros.parameters import Parameter
from cmp_seg_ros.ros.report import Problem
from cmp_seg_ros.ros.stopwatch import Stopwatch
from cmp_seg_ros.ros.transforms import TfExtrinsics
from cmp_seg_ros.scan import Float32, UInt8

NAME = "occupancy_node"
DEFAULT_BUNDLE = "scenedino-indoor-small"
FALLBACK_GRID = "indoor-camera"  # where the pose of the camera is unknown
RATES = {"occupied": 5.0, "markers": 1.0, "grid": 5.0, "images": 2.0}
PARAMETERS = [
    Parameter("model", DEFAULT_BUNDLE, "Model bundle of kind occupancy: a folder, or a name in models/"),
    Parameter(
        "engine",
        "folded",
        "folded; reference: the network as it was trained; onnxruntime: for GPUs",
        ("folded", "reference", "onnxruntime"),
    ),
    Parameter("grid", "indoor", "Voxel grid: a name in config/grids/, or a file"),
    *(
        Parameter(f"{name}_rate_hz", rate, f"Maximum rate of ~/{name}; 0: no limit", (0.0, 100.0), read_only=False)
        for name, rate in RATES.items()
    ),
    Parameter("slice_low", 0.15, "Lowest height of the voxels in ~/grid, in metres", (-10.0, 10.0), read_only=False),
    Parameter("slice_high", 1.8, "Highest height of the voxels in ~/grid, in metres", (-10.0, 10.0), read_only=False),
    Parameter("image_transport", "raw", "compressed subscribes to image/compressed", ("raw", "compressed")),
    Parameter("calibration_file", "", "Calibration with the camera's T_base_camera, and optionally its intrinsics"),
    Parameter("camera_name", "", "The camera's name in the calibration file; may be empty if it has only one"),
    Parameter("extrinsics", "file", "Where T_base_camera comes from", ("file", "tf")),
    Parameter("base_frame", "base_link", "Frame of the grid: on the floor, x forward, z up"),
    Parameter("niceness", 10, "Steps by which the process gives way to others, such as the segmentation", (0, 19)),
    *node.PARAMETERS,
]


@dataclass
class Seen:
    """An image and what is computed of it when it is first needed.

    Args:
        header: of the image.
        T_grid_camera: (4, 4), or None for a grid in the camera's frame.
        frame: of the grid.
    """

    header: Any
    rgb: UInt8
    camera: Camera
    grid: Grid
    T_grid_camera: Transform | None
    frame: str
    occupier: Occupier
    clock: Stopwatch

    @cached_property
    def view(self) -> View:
        """The network's features."""
        self.clock.pause()
        view = self.occupier.look(self.rgb, self.camera, self.T_grid_camera)
        self.clock.lap("network")
        return view

    @cached_property
    def voxels(self) -> Voxels:
        """The labelled grid."""
        view = self.view
        self.clock.pause()
        voxels = self.occupier.voxels(view, self.grid, self.T_grid_camera)
        self.clock.lap("voxels")
        return voxels

    @cached_property
    def occupied(self) -> tuple[Float32, UInt8, Float32]:
        """(N, 3) centres, (N,) labels and (N,) densities of the occupied voxels."""
        label = self.voxels.label.ravel()
        rows = np.flatnonzero(label < FREE)
        return self.grid.centres(rows), label[rows], self.voxels.density.ravel()[rows]

    @cached_property
    def rendered(self) -> Rendered:
        """Depth, labels and features as the camera sees them."""
        view = self.view
        self.clock.pause()
        rendered = self.occupier.render(view)
        self.clock.lap("render")
        return rendered


class OccupancyNode(WorkerNode[Seen]):
    """The node. Raises UserError for invalid parameters."""

    work, things = "processing", "images"

    def __init__(self) -> None:
        super().__init__(NAME, PARAMETERS, Image, "image")
        self.occupier: Occupier | None = None
        self._published: dict[str, float] = {}  # monotonic time of the last message of each output
        self._colours = FeatureColours()
        self._posed = True  # whether the last image had a pose

    def main_topic(self, message: type, topic: str) -> tuple[type, str]:
        """Images, compressed or not."""
        compressed = self.parameters["image_transport"] == "compressed"
        return (CompressedImage, f"{topic}/compressed") if compressed else (message, topic)

    def set_up(self) -> None:
        """Read the calibration; add the camera info and the outputs."""
        p = self.parameters
        os.nice(p["niceness"])
        file = p["calibration_file"]
        calibration = ImageCalibration.load(file) if file else ImageCalibration()
        named = calibration.cameras or p["camera_name"]
        self._calibrated = calibration.camera(p["camera_name"]) if named else None
        self._tf = TfExtrinsics(self) if p["extrinsics"] == "tf" else None
        self.intrinsics = Intrinsics(self._calibrated)
        self.inputs.add(CameraInfo, "camera_info", self.intrinsics.store, 2)
        self._grids = {name: Grid.load(name) for name in (p["grid"], FALLBACK_GRID)}
        if self._grids[p["grid"]].frame == "lidar":
            raise UserError(f"grid {p['grid']} is in the lidar's frame; give one in that of the base or the camera")
        for message, name, rate, make in (
            (PointCloud2, "occupied", "occupied", self._encode),
            (MarkerArray, "markers", "markers", self._encode_markers),
            (OccupancyGrid, "grid", "grid", self._encode_grid),
            (Image, "depth_image", "images", self._depth_image),
            (Image, "semantic_image", "images", self._semantic_image),
            (Image, "feature_image", "images", self._feature_image),
        ):
            self.add_output(message, f"~/{name}", self._capped(name, rate, make))

    def load(self) -> None:
        """Load the model and run it once, so that the first image finds everything ready."""
        p = self.parameters
        start = time.monotonic()
        occupier = Occupier(Bundle.find(p["model"]), p["engine"])
        if p["threads"]:
            import torch

            torch.set_num_threads(p["threads"])
        camera = self._calibrated or Camera(model="pinhole", intrinsics=(300, 300, 319.5, 239.5), width=640, height=480)
        view = occupier.look(np.zeros((camera.height, camera.width, 3), np.uint8), camera)
        occupier.voxels(view, self._grids[FALLBACK_GRID])
        self.occupier = occupier
        self.get_logger().info(f"ready after {time.monotonic() - start:.1f} s: model {p['model']}, {p['engine']}")

    # From an image to what is computed of it, in the worker thread.

    def process(self, arrival: Arrival, clock: Stopwatch) -> Seen:
        """Decode an image; the network runs when an output asks for it."""
        assert self.occupier is not None
        try:
            compressed = self.parameters["image_transport"] == "compressed"
            message = cdr.deserialize(arrival.data, cdr.COMPRESSED_IMAGE if compressed else cdr.IMAGE)
            rgb = images.to_rgb(message)
        except UserError as error:
            raise Rejected("malformed") from error
        clock.lap("decode")
        if not self.intrinsics.known:
            topic = self.resolve_topic_name("camera_info")
            self.report.note("no_camera_info", f"no camera info came on {topic}; holding images until one does")
            raise NotYet
        try:
            camera = self.intrinsics.of(rgb.shape[1], rgb.shape[0])
        except UserError as error:
            raise Rejected("no_camera") from error
        T_base_camera = self._T_base_camera(message.header.frame_id)
        grid, frame = self._grids[self.parameters["grid"]], self.parameters["base_frame"]
        if grid.frame == "camera" or T_base_camera is None:
            grid = grid if grid.frame == "camera" else self._grids[FALLBACK_GRID]
            T_base_camera, frame = None, message.header.frame_id
        return Seen(message.header, rgb, camera, grid, T_base_camera, frame, self.occupier, clock)

    def _T_base_camera(self, camera_frame: str) -> Transform | None:
        """(4, 4), or None if unknown."""
        found = None
        if self._tf is not None:
            found = self._tf.lookup(self.parameters["base_frame"], camera_frame)
        elif self._calibrated is not None and self._calibrated.T_base_camera is not None:
            found = np.array(self._calibrated.T_base_camera)
        self._posed = found is not None or self._grids[self.parameters["grid"]].frame == "camera"
        return found

    # Outputs.

    def _capped(self, name: str, group: str, make: Callable[[Seen], Any]) -> Callable[[Seen], Any]:
        """`make`, but None while the last message is more recent than the group's rate allows."""

        def capped(seen: Seen) -> Any:
            rate, now = self.parameters[f"{group}_rate_hz"], time.monotonic()
            if rate and now - self._published.get(name, -np.inf) < 1 / rate:
                return None
            self._published[name] = now
            return make(seen)

        return capped

    def _encode(self, seen: Seen) -> bytes:
        """Occupied voxels as a cloud: x, y, z, density, rgb, label."""
        xyz, label, density = seen.occupied
        rgb = point_cloud2.packed_colours(label, seen.occupier.label_space.palette)
        columns = {**dict(zip("xyz", xyz.T, strict=True)), "density": density, "rgb": rgb, "label": label}
        cloud = point_cloud2.encode(columns, (1, len(xyz)))
        return cdr.serialize_cloud(cloud, cdr.header(point_cloud2.stamp_ns(seen.header), seen.frame))

    def _encode_markers(self, seen: Seen) -> MarkerArray:
        """Occupied voxels as one list of cubes."""
        xyz, label, _ = seen.occupied
        cubes = Marker(type=Marker.CUBE_LIST, action=Marker.ADD, ns=NAME)
        cubes.header.frame_id = seen.frame
        cubes.header.stamp.sec, cubes.header.stamp.nanosec = seen.header.stamp.sec, seen.header.stamp.nanosec
        cubes.scale.x = cubes.scale.y = cubes.scale.z = seen.grid.voxel
        cubes.pose.orientation.w = 1.0
        cubes.points = [Point(x=x, y=y, z=z) for x, y, z in xyz.astype(float).tolist()]
        colours = seen.occupier.label_space.palette[label] / 255
        cubes.colors = [ColorRGBA(r=r, g=g, b=b, a=1.0) for r, g, b in colours.tolist()]
        return MarkerArray(markers=[cubes])

    def _encode_grid(self, seen: Seen) -> OccupancyGrid | None:
        """The slice between slice_low and slice_high; nothing in the camera's frame, whose z axis does not point up."""
        if seen.T_grid_camera is None:
            return None
        p, grid = self.parameters, seen.grid
        occupancy = occupancy_slice(seen.voxels.label, grid, p["slice_low"], p["slice_high"])
        stamp = point_cloud2.stamp_ns(seen.header)
        return grids.encode(occupancy, grid.origin[:2], grid.voxel, seen.frame, stamp)

    def _depth_image(self, seen: Seen) -> bytes:
        """Millimetres along the optical axis (REP 118)."""
        depth = np.clip(np.rint(1e3 * seen.rendered.depth), 0, 2**16 - 1).astype(np.uint16)
        return self._image(seen, depth, "16UC1")

    def _semantic_image(self, seen: Seen) -> bytes:
        return self._image(seen, seen.occupier.label_space.palette[seen.rendered.label], "rgb8")

    def _feature_image(self, seen: Seen) -> bytes:
        return self._image(seen, self._colours(seen.rendered.features), "rgb8")

    def _image(self, seen: Seen, pixels: Any, encoding: str) -> bytes:
        header = cdr.header(point_cloud2.stamp_ns(seen.header), seen.header.frame_id)
        return cdr.serialize(images.encode(pixels, encoding, header, cdr.message_class(cdr.IMAGE)), cdr.IMAGE)

    # Diagnostics.

    def values(self) -> dict[str, Any]:
        """The model and the grid."""
        return {name: self.parameters[name] for name in ("model", "engine", "grid")}

    def problems(self) -> list[Problem]:
        """Whether the pose of the camera is known."""
        if self._posed:
            return []
        text = (
            f"the pose of the camera on {self.parameters['base_frame']} is unknown: voxels are in the camera's frame, "
            "without ~/grid; give T_base_camera in calibration_file, or set extrinsics to tf"
        )
        return [Problem(WARN, text)]


def main() -> None:
    """Entry point."""
    node.main(NAME, OccupancyNode, __doc__ or "", PARAMETERS)


if __name__ == "__main__":
    main()
