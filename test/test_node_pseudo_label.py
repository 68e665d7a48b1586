"""The pseudo-label node over DDS: labelled clouds and images in, the teacher's labels, overlay and agreement out."""

from pathlib import Path

import numpy as np
import yaml
from ros_harness import SECOND, START, Robot, header
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import String

from cmp_seg_ros.datasets import open_input
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import cdr, images, point_cloud2
from cmp_seg_ros.nodes.pseudo_label.agreement import Agreement
from cmp_seg_ros.nodes.pseudo_label.disagreements import Disagreements
from cmp_seg_ros.ros import qos
from cmp_seg_ros.scan import UNLABELLED, Labels

SIX = LabelSpace.load("structural6")
WALL, FLOOR = 0, 1
CAMERA = Camera(model="pinhole", intrinsics=(160, 160, 160, 120), width=320, height=240)
T_CAMERA_LIDAR = [[0, -1, 0, 0.05], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
# The node with a teacher that sees walls in the upper and floors in the lower half of any image.
PROGRAM = """
import numpy as np
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.nodes import pseudo_label_node
from cmp_seg_ros.teachers.base import Masks

WALL, FLOOR = 1, 4  # in mosaic32


class Halves:
    name, dimension, label_space = "halves", 0, LabelSpace.load("mosaic32")

    def masks(self, rgb):
        label = np.full(rgb.shape[:2], WALL, np.uint8)
        label[rgb.shape[0] // 2 :] = FLOOR
        probabilities = np.zeros((60, 80, len(self.label_space.classes)), np.float32)
        probabilities[:30, :, WALL] = 1
        probabilities[30:, :, FLOOR] = 1
        return Masks(label, np.ones(label.shape, np.float32), probabilities)

pseudo_label_node.open_teacher = lambda name: Halves()
pseudo_label_node.main()
"""


def seen() -> tuple[np.ndarray, np.ndarray]:
    """A wall at 4 m above the middle of the image, and the floor before it, in the lidar's frame."""
    y, z = (a.ravel() for a in np.meshgrid(np.linspace(-2, 2, 60), np.linspace(0.1, 1.2, 20)))
    wall = np.stack([np.full(y.shape, 4.0), y, z], axis=1)
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(2.5, 3.9, 20), np.linspace(-1, 1, 40)))
    floor = np.stack([x, y, np.full(x.shape, -1.0)], axis=1)
    label = np.repeat(np.array([WALL, FLOOR], np.uint8), [len(wall), len(floor)])
    return np.concatenate([wall, floor]).astype(np.float32), label


class TaughtRobot(Robot):
    """A robot that publishes what it sees, with labels, and an image of the same stamp."""

    name = "/pseudo_label_node"

    def __init__(self, folder: Path, *parameters: str) -> None:
        super().__init__(folder / "logs")
        lidars = {"top": {"T_base_lidar": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1.0], [0, 0, 0, 1]]}}
        cameras = {"front": CAMERA.model_dump(mode="json") | {"T_camera_lidar": T_CAMERA_LIDAR}}
        (folder / "robot.yaml").write_text(yaml.safe_dump({"lidars": lidars, "cameras": cameras}))
        (folder / "node.py").write_text(PROGRAM)
        given = [f"calibration_file:={folder / 'robot.yaml'}", "camera_name:=front", "rate_hz:=50.0", *parameters]
        self.clouds = self.subscribe(PointCloud2, f"{self.name}/pseudo_points")
        self.overlays = self.subscribe(Image, f"{self.name}/overlay")
        ros = ["--ros-args", *(part for one in given for part in ("-p", one))]
        self.program = self.start(str(folder / "node.py"), *ros)
        self.points, self.pictures = self.publisher(PointCloud2, "/labelled_points"), self.publisher(Image, "/image")
        self.number = 0

    def say_space(self) -> None:
        self.spaces = self.publisher(String, "/label_space", qos.LATCHED)
        self.spaces.publish(String(data=SIX.to_yaml()))

    def drive(self, label: np.ndarray | None, size: tuple[int, int] = (240, 320)) -> None:
        """Publish an image and a cloud; without labels, a bare one."""
        stamp = START + self.number * SECOND // 10
        self.number += 1
        picture = images.encode(np.full((*size, 3), 90, np.uint8), "rgb8", header(stamp, "front"), Image)
        self.pictures.publish(picture)
        xyz, _ = seen()
        cloud = point_cloud2.encode({axis: xyz[:, i] for i, axis in enumerate("xyz")}, (1, len(xyz)))
        message = cloud.message(header(stamp), PointCloud2, PointField)
        if label is not None:
            labelled = point_cloud2.encode_labelled(message, Labels(label, np.ones(len(label), np.float32)), SIX)
            message = labelled.message(header(stamp), PointCloud2, PointField)
        self.points.publish(message)


def test_labels_overlay_agreement_and_drift(start_robot, tmp_path):
    robot = start_robot(TaughtRobot, "window:=12", f"record_folder:={tmp_path / 'kept'}", "record_below:=0.7")
    _, truth = seen()
    robot.until(lambda: robot.drive(truth) or "no_label_space" in " ".join(robot.counts()), "a note of the space")
    robot.say_space()
    robot.until(lambda: robot.drive(truth) or (robot.clouds and robot.overlays), "labels and overlay")
    label = point_cloud2.decode_labels(robot.clouds[-1]).label
    assert {WALL, FLOOR} <= set(label.tolist())
    named = label != UNLABELLED
    assert named.mean() > 0.5 and (label == truth)[named].all()
    assert (robot.overlays[-1].height, robot.overlays[-1].width) == (240, 640)
    robot.until(lambda: robot.drive(truth) or float(robot.counts().get("agreement") or 0) > 0.99, "agreement")
    assert float(robot.counts()["agreement.wall"]) > 0.99
    assert "agree on" not in robot.health.message and not (tmp_path / "kept").exists()

    robot.until(
        lambda: robot.drive(np.full_like(truth, FLOOR)) or "agree on" in robot.health.message, "a warning of drift"
    )
    assert "calibration check" in robot.health.message
    assert int(robot.counts()["recorded"]) > 0
    assert robot.program.stop() == 0
    kept = open_input(tmp_path / "kept" / "0000", sensors=SensorSet.around(tmp_path / "kept" / "0000"))
    frame = next(iter(kept))
    assert len(frame.scan) == len(truth)
    assert frame.images["front"].rgb().shape == (240, 320, 3)


def test_bare_clouds_get_labels_and_wrong_images_are_named(start_robot):
    robot = start_robot(TaughtRobot, "label_space:=structural6")
    robot.until(lambda: robot.drive(None) or (robot.clouds and robot.overlays), "labels and overlay")
    assert (robot.overlays[-1].height, robot.overlays[-1].width) == (240, 320)
    assert not robot.counts().get("agreement")
    robot.until(lambda: robot.drive(None, (100, 100)) or "100 x 100" in robot.program.err, "what is wrong")


def test_a_teacher_without_weights_says_where_to_get_them(robot, tmp_path, monkeypatch):
    monkeypatch.setenv("CMP_SEG_TEACHERS", str(tmp_path / "nothing"))
    program = robot.start("pseudo_label_node", "--ros-args", "-p", "teacher:=mosaic")
    assert program.wait() == 1
    assert "mosaic" in program.err and str(tmp_path / "nothing") in program.err


def test_agreement_slides() -> None:
    agreement = Agreement(SIX, 2)
    wall, floor = np.full(100, WALL, np.uint8), np.full(100, FLOOR, np.uint8)
    assert agreement.overall is None
    assert agreement.add(np.full(100, UNLABELLED, np.uint8), wall) is None
    assert agreement.add(wall, wall) == 1
    assert agreement.add(wall, floor) == 0
    assert agreement.overall == 0.5 and dict(agreement.by_class()) == {"wall": 0.5, "floor": 0.0}
    agreement.add(floor, floor)
    assert agreement.overall == 0.5 and dict(agreement.by_class()) == {"wall": 0.0, "floor": 0.5}


def test_recording_ends_with_the_budget(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("cmp_seg_ros.nodes.pseudo_label.disagreements.LEAST_APART", 0.0)
    xyz, _ = seen()
    types = cdr.typestore().types
    cloud = point_cloud2.encode({axis: xyz[:, i] for i, axis in enumerate("xyz")}, (1, len(xyz)))
    data = cdr.serialize_cloud(cloud, cdr.header(START, "lidar"))
    image = cdr.serialize(
        images.encode(np.zeros((10, 10, 3), np.uint8), "rgb8", cdr.header(START, "front"), types[cdr.IMAGE]), cdr.IMAGE
    )
    budget = 3 * (len(data) + len(image))
    kept = Disagreements(tmp_path / "kept", budget, "/front/image", cdr.IMAGE, "")
    for number in range(5):
        kept.add(START + number, data, image)
    assert kept.recorded == 3 and "raise record_megabytes" in kept.ended
    kept.close()
    assert len(open_input(tmp_path / "kept" / "0000")) == 3
    again = Disagreements(tmp_path / "kept", budget, "/front/image", cdr.IMAGE, "")
    again.add(START, data, image)
    assert again.recorded == 0 and again.ended
