"""Images with their camera, from a file, a folder or a bag."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cmp_seg_ros import configuration
from cmp_seg_ros.datasets.bag import Bag, bag_of
from cmp_seg_ros.datasets.bag_index import IMAGE_TYPES
from cmp_seg_ros.datasets.base import read_picture
from cmp_seg_ros.datasets.storage import kind_of
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import ImageCalibration
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.messages import camera_info
from cmp_seg_ros.messages.images import to_rgb
from cmp_seg_ros.occupancy.grid import Transform
from cmp_seg_ros.scan import UInt8

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
INFO = "sensor_msgs/msg/CameraInfo"


class CameraPose(NamedTuple):
    """A camera, and where it stands on the robot, if that is known."""

    camera: Camera
    T_base_camera: Transform | None


def load_camera(file: Path, name: str = "") -> CameraPose:
    """The camera of a calibration file, or of a file that describes only one. Raises UserError."""
    content = configuration.read_yaml("calibration file", file)
    if isinstance(content, dict) and "intrinsics" in content:
        return CameraPose(configuration.read(Camera, "camera", file), None)
    camera = ImageCalibration.load(file).camera(name)
    return CameraPose(camera, None if camera.T_base_camera is None else np.array(camera.T_base_camera))


def images_of(path: Path, pose: CameraPose | None, topic: str = "") -> Iterator[tuple[str, UInt8, CameraPose]]:
    """Name, (H, W, 3) pixels and camera of each image.

    Args:
        path: an image, a folder of images, or a bag.
        pose: the camera; None: that of the bag's camera info.
        topic: of the images in a bag, if it has several.

    Raises:
        UserError: nothing to read, a file that is no image, or no camera.
    """
    if not path.exists():
        raise UserError(f"there is no {path}")
    if (path / "bag").is_dir():  # of `cmp-seg simulate`
        path = path / "bag"
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        files = [path]
    elif path.is_dir() and not (path / "metadata.yaml").exists():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise UserError(f"folder {path} has no images ({', '.join(SUFFIXES)}), and is no bag")
    elif path.is_dir() or kind_of(path) is not None:
        yield from _of_bag(path, pose, topic)
        return
    else:
        raise UserError(f"{path} is no image, folder of images, or bag")
    if pose is None:
        raise UserError(f"{path} does not describe its camera: give --calibration FILE with its model and intrinsics")
    for file in files:
        yield file.stem, read_picture(file), pose


def _of_bag(path: Path, pose: CameraPose | None, topic: str) -> Iterator[tuple[str, UInt8, CameraPose]]:
    bag = Bag(bag_of(path))
    topics = [name for name, info in bag.topics.items() if info.type in IMAGE_TYPES and "truth" not in name]
    if (topic and topic not in topics) or (not topic and len(topics) != 1):
        raise UserError(f"bag {path}: give one of its image topics with --topic: {', '.join(topics) or 'it has none'}")
    topic = topic or topics[0]
    infos = [name for name, info in bag.topics.items() if info.type == INFO]
    if pose is None and len(infos) != 1:
        beside = [name for name in infos if name.rsplit("/", 1)[0] in topic]
        if len(beside) != 1:
            raise UserError(f"bag {path} has no camera info for {topic}; give --calibration FILE")
        infos = beside
    wanted = [topic] if pose is not None else [topic, *infos]
    number, waiting = 0, []  # images that come before the first camera info
    for message in bag.messages(wanted):
        if message.topic == topic:
            waiting.append(message.message)
        else:  # a camera info may change with the recording
            pose = CameraPose(camera_info.decode(message.message), None)
        if pose is not None:
            for image in waiting:
                yield f"{number:05d}", to_rgb(image), pose
                number += 1
            waiting.clear()
