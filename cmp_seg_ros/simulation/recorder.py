"""Records a simulated robot: a ROS 2 bag (mcap), a calibration file, a report and a picture."""

import io
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.geometry.track import pose_of
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import cdr, images, point_cloud2
from cmp_seg_ros.messages.bag_writer import BagWriter
from cmp_seg_ros.messages.transforms import TF, TF_MESSAGE, TF_STATIC, tf_message
from cmp_seg_ros.outputs import REPORT, claim, remove_bag, require_writable, write_report
from cmp_seg_ros.scan import UNLABELLED, Bool, Int64, UInt8
from cmp_seg_ros.simulation.camera import Image
from cmp_seg_ros.simulation.lidar import Lidar, Sweep
from cmp_seg_ros.simulation.mesh import indoor
from cmp_seg_ros.simulation.rig import Rig, RigConfig
from cmp_seg_ros.simulation.rig_camera import RigCamera
from cmp_seg_ros.workers import process_map

START = 1_700_000_000_000_000_000  # nanoseconds; fixed, so that recordings are reproducible
ODOMETRY_RATE = 50.0
TRUTH_SPACES = ("structural6", "indoor")
BAG, CALIBRATION, PREVIEW = "bag", "calibration.yaml", "preview.png"
FILES = (BAG, CALIBRATION, REPORT, PREVIEW)

CLOUD, IMAGE, COMPRESSED, INFO = cdr.POINT_CLOUD2, cdr.IMAGE, cdr.COMPRESSED_IMAGE, cdr.CAMERA_INFO
ODOMETRY = "nav_msgs/msg/Odometry"
ODOM, BASE = "odom", "base_link"  # frames (REP 105)
DISTORTION_MODELS = {"pinhole": "plumb_bob", "equidistant": "equidistant"}  # CameraInfo has no name for mei
JPEG_QUALITY = 90


class Record(NamedTuple):
    """One serialised message of the bag."""

    topic: str
    time: int
    data: bytes


@dataclass(frozen=True)
class Frame:
    """The messages of one turn of the lidar, in temporal order, and statistics of the scan."""

    records: list[Record]
    points: int
    seen: Int64  # points visible to each camera
    classes: Int64  # (256,) points of each class of structural6


def topics_of(config: RigConfig) -> dict[str, str]:
    """Topics of a recording, with their types."""
    topics = {"/lidar/points": CLOUD, "/truth/points": CLOUD}
    for camera in config.cameras:
        topics[_image_topic(camera)] = COMPRESSED if camera.compressed else IMAGE
        if camera.camera.model in DISTORTION_MODELS:
            topics[f"/{camera.name}/camera_info"] = INFO
        topics |= {f"/truth/{camera.name}/{space}": IMAGE for space in TRUTH_SPACES}
    return topics | {"/odom": ODOMETRY, TF: TF_MESSAGE, TF_STATIC: TF_MESSAGE}


def _image_topic(camera: RigCamera) -> str:
    return f"/{camera.name}/image" + ("/compressed" if camera.compressed else "")


def record(config: RigConfig, out: Path, processes: int | None = None, again: bool = False) -> Iterator[int]:
    """Write a recording to the folder `out`, and yield the number of scans done after each.

    Args:
        config: of the recording; images are most of the work.
        out: for `bag/`, `calibration.yaml`, `preview.png` and, last, `report.json`.
        processes: number of processes; None: one per core, at most four. The bytes do not depend on it.
        again: replace a finished recording of another configuration in `out`.

    Raises:
        UserError: the sensor is unknown; the folder has files of another program, or a recording of another
            configuration, or is not writable.
        OSError: the folder cannot be written.
    """
    began = time.perf_counter()
    rig = Rig(config)
    settings = _settings(config)
    require_writable(out, "simulate", FILES)
    if not again:
        _require_same(out, settings)
    claim(out, "simulate", FILES)
    remove_bag(out / BAG)
    (out / PREVIEW).unlink(missing_ok=True)
    rig.calibration().save(out / CALIBRATION)
    points, seen, classes = [], np.zeros(len(config.cameras), np.int64), np.zeros(256, np.int64)
    end = rig.frames / rig.rate
    odometry = list(_odometry(rig, end))
    with BagWriter(out / BAG, topics_of(config), latched=[TF_STATIC]) as bag:
        bag.write(TF_STATIC, START, _mounts(rig))
        for index, frame in enumerate(_frames(rig, config, processes)):
            for entry in frame.records:
                while odometry and odometry[0].time <= entry.time:
                    bag.write(*odometry.pop(0))
                bag.write(*entry)
            points.append(frame.points)
            seen += frame.seen
            classes += frame.classes
            yield index + 1
        for entry in odometry:
            bag.write(*entry)
    from cmp_seg_ros.simulation.preview import draw_preview

    draw_preview(rig, out / PREVIEW)
    report = _report(rig, points, seen, classes, time.perf_counter() - began)
    write_report(out, report | {"finished": True, "settings": settings})


def _settings(config: RigConfig) -> dict[str, Any]:
    """The configuration as JSON has it."""
    cameras = [asdict(camera) | {"camera": camera.camera.model_dump()} for camera in config.cameras]
    settings: dict[str, Any] = json.loads(json.dumps(asdict(config) | {"cameras": cameras}, default=str))
    return settings


def _require_same(out: Path, settings: dict[str, Any]) -> None:
    """Raise UserError if `out` has a finished recording of other settings."""
    if not (out / REPORT).is_file():
        return
    report = json.loads((out / REPORT).read_text())
    known = report.get("settings", {})  # earlier versions wrote neither these nor `finished` at the end
    other = [name for name, value in settings.items() if known.get(name) != value]
    if other and report.get("finished", True):
        raise UserError(
            f"{out} has a recording made with other settings ({', '.join(other)}); give another --out, or --again to "
            "replace it"
        )


# -- frames, in one process or several

_worker: Rig | None = None


def _start_worker(config: RigConfig) -> None:
    global _worker
    _worker = Rig(config)


def _work(index: int) -> Frame:
    if _worker is None:
        raise RuntimeError("_start_worker has not run")
    return make_frame(_worker, index)


def _frames(rig: Rig, config: RigConfig, processes: int | None) -> Iterator[Frame]:
    count = min(processes or min(4, len(os.sched_getaffinity(0))), rig.frames)
    if count <= 1:
        yield from (make_frame(rig, i) for i in range(rig.frames))
        return
    yield from process_map(_work, range(rig.frames), count, _start_worker, (config,))


def make_frame(rig: Rig, index: int) -> Frame:
    """Messages of scan and images `index`."""
    scan_stamp = START + round(rig.scan_time(index) * 1e9)
    done = scan_stamp + round(1e9 / rig.lidar.rate)
    stamp = START + round(rig.image_time(index) * 1e9)
    result = rig.scan(index, scan_stamp)
    visible = {c.name: rig.visible(index, result, n) for n, c in enumerate(rig.config.cameras)}
    records = []
    for number, camera in enumerate(rig.config.cameras):
        messages = image_messages(rig.image(index, number), camera, stamp)
        records += [Record(topic, stamp + 5_000_000, cdr.serialize(message, kind)) for topic, kind, message in messages]
    header = cdr.header(scan_stamp, result.scan.frame_id)
    for topic, cloud in clouds(result, rig.lidar, visible).items():
        records.append(Record(topic, done, cdr.serialize_cloud(cloud, header)))
    classes = np.bincount(to_space("structural6")[result.label], minlength=256)
    classes[UNLABELLED] = 0
    seen = np.array([mask.sum() for mask in visible.values()], dtype=np.int64)
    return Frame(records, int(result.scan.valid().sum()), seen, classes)


# -- messages


@cache
def to_space(name: str) -> UInt8:
    """(256,) table from `indoor` to the label space `name`."""
    return LabelSpace.load(name).id_map(indoor())


def clouds(result: Sweep, lidar: Lidar, visible: dict[str, Bool]) -> dict[str, point_cloud2.Cloud]:
    """By topic: a sweep as the sensor's driver publishes it, and its truth, with the same points.

    Fields of the truth: the id in each of `TRUTH_SPACES`, and `visible_NAME`, 1 if the camera of that name sees the
    point; all uint8.
    """
    rows, shape = _driver_order(result, lidar)
    truth = {name: to_space(name)[result.label[rows]] for name in TRUTH_SPACES}
    truth |= {f"visible_{name}": mask[rows].astype(np.uint8) for name, mask in visible.items()}
    cloud = _driver_cloud(result, lidar, rows, shape)
    return {"/lidar/points": cloud, "/truth/points": point_cloud2.encode(truth, shape)}


def _driver_order(result: Sweep, lidar: Lidar) -> tuple[Int64, tuple[int, int]]:
    """Indices of the points that a driver publishes, in its order, and (height, width).

    Ouster's driver keeps the image of beams by columns, with (0, 0, 0) without a return. Velodyne's and Hesai's publish
    only the returns, firing by firing.
    """
    numbers = np.arange(len(result.label)).reshape(lidar.shape)
    if lidar.layout == "ouster":
        return numbers.ravel(), lidar.shape
    by_firing = numbers.T.ravel()
    rows = by_firing[result.range[by_firing] > 0]
    return rows, (1, len(rows))


def _driver_cloud(result: Sweep, lidar: Lidar, rows: Int64, shape: tuple[int, int]) -> point_cloud2.Cloud:
    """A cloud with the fields, types, offsets and units of the drivers."""
    scan = result.scan
    if scan.intensity is None or scan.time is None:
        raise ValueError("the sweep must have intensities and times")
    xyz, ring, seconds = scan.xyz[rows], result.ring[rows], scan.time[rows].astype(np.float64)
    fields: dict[str, npt.NDArray[Any]] = {name: xyz[:, i] for i, name in enumerate("xyz")}
    fields["intensity"] = scan.intensity[rows]
    if lidar.layout == "ouster":  # ouster-ros, PointOS1: 48 bytes
        fields["t"] = np.round(seconds * 1e9).astype(np.uint32)
        fields["reflectivity"] = np.clip(255 * result.reflectivity[rows], 0, 255).astype(np.uint16)
        fields["ring"] = ring
        fields["ambient"] = np.where(result.range[rows] > 0, 60 + 240 * result.reflectivity[rows], 50).astype(np.uint16)
        fields["range"] = np.round(result.range[rows] * 1000).astype(np.uint32)
        offsets = dict(x=0, y=4, z=8, intensity=16, t=20, reflectivity=24, ring=26, ambient=28, range=32)  # noqa: C408
        return point_cloud2.encode(fields, shape, offsets, 48)
    fields["ring"] = ring
    if lidar.layout == "velodyne":  # velodyne_pointcloud, PointXYZIRT: 22 bytes, time in seconds from the stamp
        fields["time"] = seconds.astype(np.float32)
        return point_cloud2.encode(fields, shape, point_step=22)
    fields["timestamp"] = scan.stamp * 1e-9 + seconds  # Hesai's driver: 26 bytes, seconds since the epoch
    return point_cloud2.encode(fields, shape, point_step=26)


def image_messages(image: Image, camera: RigCamera, stamp: int) -> Iterator[tuple[str, str, Any]]:
    """(topic, type, message): the image, its CameraInfo, and mono8 images of the true ids (255 is the sky)."""
    types, header = cdr.typestore().types, cdr.header(stamp, camera.name)
    pixels, encoding = camera.pixels(image.rgb), camera.encoding
    if camera.compressed:
        # as written by compressed_image_transport: OpenCV decodes colours as bgr8, then converted to `encoding`
        form = f"{encoding}; jpeg compressed {'' if camera.mono else 'bgr8'}"
        yield _image_topic(camera), COMPRESSED, types[COMPRESSED](header, form, _jpeg(pixels))
    else:
        yield _image_topic(camera), IMAGE, images.encode(pixels, encoding, header, types[IMAGE])
    if camera.camera.model in DISTORTION_MODELS:
        yield f"/{camera.name}/camera_info", INFO, _camera_info(camera.camera, header)
    for space in TRUTH_SPACES:
        truth = images.encode(to_space(space)[image.label], "mono8", header, types[IMAGE])
        yield f"/truth/{camera.name}/{space}", IMAGE, truth


def _jpeg(pixels: UInt8) -> UInt8:
    from PIL import Image as Picture

    stream = io.BytesIO()
    Picture.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY)
    return np.frombuffer(stream.getvalue(), np.uint8)


def _camera_info(camera: Camera, header: Any) -> Any:
    types = cdr.typestore().types
    fx, fy, cx, cy = camera.intrinsics
    distortion = camera.distortion or [0.0] * 4
    padded = [*distortion, 0.0] if camera.model == "pinhole" and len(distortion) == 4 else distortion
    roi = types["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return types[INFO](
        header=header,
        height=camera.height,
        width=camera.width,
        distortion_model=DISTORTION_MODELS[camera.model],
        d=np.array(padded),
        k=np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1]),
        r=np.eye(3).ravel(),
        p=np.array([fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0]),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def _odometry(rig: Rig, end: float) -> Iterator[Record]:
    """Poses of the base in `odom` (the building's frame), from the start until one sweep after the end."""
    types = cdr.typestore().types
    point, vector = types["geometry_msgs/msg/Point"], types["geometry_msgs/msg/Vector3"]
    quaternion = types["geometry_msgs/msg/Quaternion"]
    for at in np.arange(0.0, end + 1 / rig.lidar.rate, 1 / ODOMETRY_RATE):
        T = rig.trajectory.pose(np.array([at]))[0]
        numbers = pose_of(T)
        pose = types["geometry_msgs/msg/Pose"](position=point(*numbers[:3]), orientation=quaternion(*numbers[3:]))
        linear, angular = (vector(*(float(v) for v in part)) for part in rig.trajectory.velocity(float(at)))
        twist = types["geometry_msgs/msg/Twist"](linear=linear, angular=angular)
        stamp = START + round(float(at) * 1e9)
        message = types[ODOMETRY](
            header=cdr.header(stamp, ODOM),
            child_frame_id=BASE,
            pose=types["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=np.zeros(36)),
            twist=types["geometry_msgs/msg/TwistWithCovariance"](twist=twist, covariance=np.zeros(36)),
        )
        yield Record("/odom", stamp, cdr.serialize(message, ODOMETRY))
        yield Record(TF, stamp, cdr.serialize(tf_message(ODOM, {BASE: T}, stamp), TF_MESSAGE))


def _mounts(rig: Rig) -> Any:
    """TFMessage: lidar and cameras on the base."""
    mounts = {"lidar": rig.T_base_lidar}
    mounts |= {c.name: T for c, T in zip(rig.config.cameras, rig.T_base_cameras, strict=True)}
    return tf_message(BASE, mounts, START)


def _report(rig: Rig, points: list[int], seen: Int64, classes: Int64, wall_seconds: float) -> dict[str, Any]:
    space, config = LabelSpace.load("structural6"), rig.config
    poses = rig.trajectory.pose(np.linspace(0, config.seconds, 200))
    places, heights = poses[:, :3, 3], (poses @ rig.T_base_lidar)[:, 2, 3]
    return {
        "command": "simulate",
        "seed": config.seed,
        "scene": str(config.scene) if config.scene else None,
        "building": rig.building.plan.kind,
        "rooms": len(rig.building.plan.rooms),
        "triangles": len(rig.building.mesh),
        "people": len(rig.people),
        "sensor": rig.lidar.name,
        "seconds": config.seconds,
        "rate_hz": rig.rate,
        "motion": config.motion,
        "roll": config.roll,
        "pitch": config.pitch,
        "lidar_height": [round(float(heights.min()), 2), round(float(heights.max()), 2)],
        "scans": len(points),
        "images": len(points) * len(config.cameras),
        "points_per_scan": round(float(np.mean(points)), 1),
        "cameras": {
            camera.name: {
                "model": camera.camera.model,
                "size": [camera.camera.width, camera.camera.height],
                "encoding": camera.encoding,
                "compressed": camera.compressed,
                "points_seen": round(float(count / max(sum(points), 1)), 4),
            }
            for camera, count in zip(config.cameras, seen, strict=True)
        },
        "class_shares": {c.name: round(float(classes[c.id] / max(classes.sum(), 1)), 4) for c in space.classes},
        "metres": round(float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum()), 2),
        "wall_seconds": round(wall_seconds, 2),
    }
