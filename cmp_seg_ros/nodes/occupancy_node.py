"""Labels the space that a camera sees: images in, labelled voxels out.

    occupancy_node --ros-args -r image:=/camera/image -r camera_info:=/camera/info -p calibration_file:=robot.yaml

The newest image is taken; others that came meanwhile are dropped, and counted. Only what somebody subscribes to is
computed. Grids stand in the robot's base frame, where the camera's place in it is known, else in the camera's frame and
without ~/occupancy_grid. docs/occupancy.md has more.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import Point
from nav_msgs.msg import OccupancyGrid
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import ColorRGBA, Header, String

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import Calibration, Transform
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import cdr, images, occupancy
from cmp_seg_ros.ros import node, qos
from cmp_seg_ros.ros.camera import intrinsics_of
from cmp_seg_ros.ros.inputs import Arrival, Inputs
from cmp_seg_ros.ros.node import Rejected, WorkerNode
from cmp_seg_ros.ros.parameters import Parameter
from cmp_seg_ros.ros.stopwatch import Stopwatch
from cmp_seg_ros.ros.transforms import TfExtrinsics
from cmp_seg_ros.scan import Float32, UInt8

if TYPE_CHECKING:
    from cmp_seg_ros.occupancy.grid import Grid
    from cmp_seg_ros.occupier import Occupier, Rendered, View, Voxels

NAME = "occupancy_node"
RATE = (0.0, 1000.0)
PARAMETERS = [
    Parameter("model", "scenedino-indoor-small", "Model bundle of kind occupancy: a folder, or a name in models/"),
    Parameter("engine", "folded", "folded, or reference: the network as it is", ("folded", "reference")),
    Parameter("grid", "indoor", "Voxels around the robot: a name in config/grids/, or a file"),
    Parameter("camera_grid", "indoor-camera", "Voxels where the camera's place on the robot is not known"),
    Parameter("calibration_file", "", "Calibration of the robot's sensors; empty: camera_info, and the camera's frame"),
    Parameter("camera_name", "", "The camera's name in the calibration file; may be empty if it has only one"),
    Parameter("extrinsics", "file", "Where the camera's place on the robot comes from", ("file", "tf", "none")),
    Parameter("base_frame", "base_link", "Frame of the robot: level, on the floor"),
    Parameter("image_transport", "raw", "compressed subscribes to image/compressed", ("raw", "compressed")),
    Parameter("slice.low", 0.1, "Least height in metres of what stands in ~/occupancy_grid", (-10.0, 10.0)),
    Parameter("slice.high", 1.5, "Greatest height of it", (-10.0, 10.0)),
    Parameter("max_rate_hz.voxels", 0.0, "Most voxel clouds and markers a second; 0: no limit", RATE, read_only=False),
    Parameter("max_rate_hz.grid", 0.0, "Most occupancy grids a second; 0: no limit", RATE, read_only=False),
    Parameter("max_rate_hz.images", 0.0, "Most rendered images of a kind a second; 0: no limit", RATE, read_only=False),
    *node.PARAMETERS,
]


@dataclass
class Seen:
    """An image, and what is found in it when it is asked for."""

    occupier: "Occupier"
    clock: Stopwatch
    view: "View"
    grid: "Grid"
    T_base_camera: Transform | None
    header: Header  # of the image
    grid_header: Header

    @cached_property
    def voxels(self) -> "Voxels":
        found = self.occupier.voxels(self.view, self.grid, self.T_base_camera)
        self.clock.lap("voxels")
        return found

    @cached_property
    def rendered(self) -> "Rendered":
        found = self.occupier.render(self.view)
        self.clock.lap("render")
        return found


class OccupancyNode(WorkerNode[Seen]):
    """The node. Raises UserError for wrong parameters."""

    work, things = "looking at", "images"

    def __init__(self) -> None:
        super().__init__(NAME, PARAMETERS, Image, "image")
        self.compressed = self.parameters["image_transport"] == "compressed"
        if self.compressed:
            reliability = self.parameters["input_reliability"]
            self.inputs = Inputs(self, CompressedImage, "image/compressed", self.report.tally, reliability)
        self.occupier: Occupier | None = None
        self._info: bytes | None = None
        self._basis: tuple[Float32, Float32, Float32] | None = None  # of the colours of features
        self._published: dict[str, float] = {}

    def set_up(self) -> None:
        """What comes in beside the images, and what goes out."""
        p = self.parameters
        calibration = Calibration.load(p["calibration_file"]) if p["calibration_file"] else Calibration()
        self._camera = calibration.camera(p["camera_name"]) if calibration.cameras or p["camera_name"] else None
        self._tf = TfExtrinsics(self) if p["extrinsics"] == "tf" else None
        self.inputs.add(CameraInfo, "camera_info", self._store_info, 2)
        self.add_output(PointCloud2, "~/occupied_voxels", self._capped("voxels", "cloud", self._cloud))
        self.add_output(OccupancyGrid, "~/occupancy_grid", self._capped("grid", "grid", self._flat))
        self.add_output(Image, "~/depth", self._capped("images", "depth", self._depth))
        self.add_output(Image, "~/semantics", self._capped("images", "semantics", self._semantics))
        self.add_output(Image, "~/features", self._capped("images", "features", self._features))
        try:
            from visualization_msgs.msg import Marker, MarkerArray
        except ImportError:
            self.get_logger().info("visualization_msgs is not installed: there is no ~/markers")
        else:
            self._kinds = {"MarkerArray": MarkerArray, "Marker": Marker, "Point": Point, "ColorRGBA": ColorRGBA}
            self.add_output(MarkerArray, "~/markers", self._capped("voxels", "markers", self._boxes))
        self._space_publisher = self.create_publisher(String, "~/label_space", qos.LATCHED)

    def load(self) -> None:
        """Load the model and run it once, so that the first image finds everything ready."""
        from cmp_seg_ros.geometry.cameras import Camera
        from cmp_seg_ros.occupancy.grid import Grid
        from cmp_seg_ros.occupier import Occupier

        p, start = self.parameters, time.monotonic()
        occupier = Occupier.from_bundle(p["model"], p["engine"])
        if p["threads"]:
            sys.modules["torch"].set_num_threads(p["threads"])
        self.grids = Grid.load(p["grid"]), Grid.load(p["camera_grid"])
        if self.grids[0].frame != "base" or self.grids[1].frame != "camera":
            raise UserError("parameter grid needs a grid of frame base, camera_grid one of frame camera")
        camera = self._camera or Camera(model="pinhole", intrinsics=(300, 300, 159.5, 119.5), width=320, height=240)
        view = occupier.look(np.full((camera.height, camera.width, 3), 128, np.uint8), camera)
        occupier.voxels(view, self.grids[1])
        self.space: LabelSpace = occupier.label_space
        self._space_publisher.publish(String(data=self.space.to_yaml()))
        self.occupier = occupier
        self.get_logger().info(
            f"ready after {time.monotonic() - start:.1f} s: model {p['model']}, engine {p['engine']}, "
            f"label space {self.space.name}"
        )

    def _unwanted(self) -> bool:
        return not any(output.wanted for output in self._outputs)

    def _store_info(self, data: bytes) -> None:
        self._info = data

    # From an image to what it shows, in the worker's thread.

    def process(self, arrival: Arrival, clock: Stopwatch) -> Seen:
        """Run the network on an image."""
        assert self.occupier is not None
        try:
            message = cdr.deserialize(arrival.data, cdr.COMPRESSED_IMAGE if self.compressed else cdr.IMAGE)
            rgb = images.to_rgb(message)
        except Exception as error:
            raise Rejected("malformed") from error
        clock.lap("decode")
        camera = intrinsics_of(rgb.shape[1], rgb.shape[0], self._camera, self._info)
        T_base_camera = self._place(message.header.frame_id)
        view = self.occupier.look(rgb, camera)
        clock.lap("network")
        header = Header(frame_id=message.header.frame_id)
        header.stamp.sec, header.stamp.nanosec = message.header.stamp.sec, message.header.stamp.nanosec
        known = T_base_camera is not None
        grid_header = Header(stamp=header.stamp, frame_id=self.parameters["base_frame"] if known else header.frame_id)
        return Seen(self.occupier, clock, view, self.grids[0 if known else 1], T_base_camera, header, grid_header)

    def _place(self, frame: str) -> Transform | None:
        """T_base_camera, or None where it is not known."""
        if self._tf is not None:
            found = self._tf.lookup(self.parameters["base_frame"], frame)
            if found is None:
                base = self.parameters["base_frame"]
                self.report.note(
                    "no_transform", f"TF has no transform from {frame} to {base}; using the camera's frame"
                )
            return found
        if self.parameters["extrinsics"] == "none" or self._camera is None or self._camera.T_base_camera is None:
            return None
        return np.array(self._camera.T_base_camera)

    # What is published of it.

    def _capped(self, group: str, name: str, make: Callable[[Seen], Any]) -> Callable[[Seen], Any]:
        """`make`, but None while the output's last message is too recent for the rate of its group."""

        def capped(seen: Seen) -> Any:
            limit, now = self.parameters[f"max_rate_hz.{group}"], time.monotonic()
            if limit and now - self._published.get(name, -np.inf) < 1 / limit:
                return None
            self._published[name] = now
            return make(seen)

        return capped

    def _cloud(self, seen: Seen) -> bytes:
        found = occupancy.cloud(seen.grid, seen.voxels.label, seen.voxels.density, self.space)
        return cdr.serialize_cloud(found, _plain(seen.grid_header))

    def _boxes(self, seen: Seen) -> Any:
        return occupancy.boxes(seen.grid, seen.voxels.label, self.space, seen.grid_header, self._kinds)

    def _flat(self, seen: Seen) -> OccupancyGrid:
        grid = seen.grid
        if grid.frame != "base":
            raise UserError(
                "without the camera's place on the robot nobody knows what is level: give T_base_camera in the "
                "calibration file, or extrinsics from tf"
            )
        cells = occupancy.flat(grid, seen.voxels.label, self.parameters["slice.low"], self.parameters["slice.high"])
        message = OccupancyGrid(header=seen.grid_header)
        message.info.resolution = grid.voxel
        message.info.height, message.info.width = cells.shape
        message.info.origin.position.x, message.info.origin.position.y = grid.origin[0], grid.origin[1]
        message.info.origin.orientation.w = 1.0
        message.info.map_load_time = seen.grid_header.stamp
        message.data = cells.ravel().tolist()
        return message

    def _depth(self, seen: Seen) -> bytes:
        return self._image(seen, seen.rendered.depth, "32FC1")

    def _semantics(self, seen: Seen) -> bytes:
        return self._image(seen, self.space.palette[seen.rendered.label], "rgb8")

    def _features(self, seen: Seen) -> bytes:
        """The features' three main components as colours; those of the first image, so that colours stay."""
        features = seen.rendered.features
        flat = features.reshape(-1, features.shape[-1])
        if self._basis is None:
            mean = flat.mean(axis=0)
            axes = np.linalg.svd(flat - mean, full_matrices=False)[2][:3].T
            self._basis = mean, axes, ((flat - mean) @ axes).std(axis=0) + 1e-6
        mean, axes, spread = self._basis
        colours = np.clip(128 + 64 * ((flat - mean) @ axes) / spread, 0, 255).astype(np.uint8)
        return self._image(seen, colours.reshape(*features.shape[:2], 3), "rgb8")

    def _image(self, seen: Seen, pixels: "UInt8 | Float32", encoding: str) -> bytes:
        header = _plain(seen.header)
        return cdr.serialize(images.encode(pixels, encoding, header, cdr.message_class(cdr.IMAGE)), cdr.IMAGE)

    # For /diagnostics.

    def values(self) -> dict[str, Any]:
        """The model, and where its grid stands."""
        values = {"model": self.parameters["model"], "engine": self.parameters["engine"]}
        return values | {"camera_info": "received" if self._info is not None else None}


def _plain(header: Header) -> Any:
    """The header as one of the serialiser's own type store."""
    return cdr.header(header.stamp.sec * 1_000_000_000 + header.stamp.nanosec, header.frame_id)


def main() -> None:
    """Entry point."""
    node.main(NAME, OccupancyNode, __doc__ or "", PARAMETERS)


if __name__ == "__main__":
    main()
