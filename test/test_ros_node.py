"""The base of nodes, by one of another kind: images in, their brightness out."""

import numpy as np
import pytest
from ros_harness import START, header
from sensor_msgs.msg import Image
from std_msgs.msg import Float32, UInt32

from cmp_seg_ros.messages.images import encode

NODE = """
import time
from sensor_msgs.msg import Image
from std_msgs.msg import Float32, UInt32

from cmp_seg_ros.messages import cdr, images
from cmp_seg_ros.ros import node
from cmp_seg_ros.ros.node import NotYet, Rejected, WorkerNode
from cmp_seg_ros.ros.parameters import Parameter

PARAMETERS = [Parameter("needed", 0, "Numbers that must have come", (0, 9)), *node.PARAMETERS]


class BrightnessNode(WorkerNode[float]):
    work, things = "measuring", "images"

    def __init__(self):
        super().__init__("brightness_node", PARAMETERS, Image, "image")
        self.numbers = 0

    def set_up(self):
        self.inputs.add(UInt32, "number", self.count)
        self.add_output(Float32, "~/brightness", lambda mean: Float32(data=mean))
        self.add_output(Float32, "~/faulty", lambda mean: 1 / 0)
        self.add_output(UInt32, "~/number", lambda mean: UInt32(data=self.numbers), late=True)

    def count(self, data):
        self.numbers += 1

    def process(self, arrival, clock):
        if self.numbers < self.parameters["needed"]:
            raise NotYet
        message = cdr.deserialize(arrival.data, cdr.IMAGE)
        if not message.width:
            raise Rejected("empty")
        mean = float(images.to_rgb(message).mean())
        if mean > 250:
            raise ValueError("too bright")
        clock.lap("measure")
        time.sleep(0.05)
        return mean


node.main("brightness_node", BrightnessNode, "Brightness of images.", PARAMETERS)
"""


def image(value: int, stamp: int = START) -> Image:
    return encode(np.full((4, 6, 3), value, np.uint8), "rgb8", header(stamp, "camera"), Image)


@pytest.fixture
def robot(robot, tmp_path):
    robot.name = "/brightness_node"
    robot.means = robot.subscribe(Float32, "/brightness_node/brightness")
    (tmp_path / "node.py").write_text(NODE)
    robot.script = str(tmp_path / "node.py")
    return robot


def test_every_image_is_accounted_for_and_outputs_are_made_for_subscribers(robot):
    program = robot.start(robot.script)
    images = robot.publisher(Image, "/image")
    robot.until(lambda: images.publish(image(7)) or robot.means, "a result")
    assert robot.means[0].data == 7
    robot.until(lambda: robot.counts().get("pending") == "0", "rest")
    assert "note.no_faulty" not in robot.counts(), "nobody subscribes to it"
    faulty, numbers = (
        robot.subscribe(kind, f"/brightness_node/{name}") for kind, name in ((Float32, "faulty"), (UInt32, "number"))
    )
    robot.until(lambda: images.publish(image(8)) or numbers, "a late output")
    robot.until(lambda: images.publish(image(8)) or "note.no_faulty" in robot.counts(), "a note of the faulty one")
    assert "no faulty: ZeroDivisionError" in program.err and not faulty
    before = len(robot.means)
    for value in range(100, 130):
        images.publish(image(value))
    robot.until(lambda: len(robot.means) > before and robot.means[-1].data == 129, "the newest")
    images.publish(image(255))
    robot.until(lambda: robot.counts().get("dropped.failed") == "1", "a failure")
    images.publish(Image(header=header(START, "camera")))
    robot.until(lambda: robot.counts().get("dropped.empty") == "1", "an empty one")
    assert "dropped: ValueError: too bright" in program.err
    assert program.stop() == 0
    robot.until(lambda: robot.counts()["pending"] == "0", "the last report")
    now = robot.counts()
    assert int(now["in"]) == int(now["out"]) + int(now["dropped"])
    assert int(now["dropped.superseded"]) > 0 and "ms.measure.p50" in now
    assert (robot.health.name, robot.health.hardware_id) == ("/brightness_node: images", "camera")


def test_an_image_waits_for_what_it_needs_and_gives_way_to_a_newer_one(robot):
    robot.start(robot.script, "--ros-args", "-p", "needed:=2")
    images = robot.publisher(Image, "/image")
    numbers = robot.publisher(UInt32, "/number")
    for value in (10, 20):
        images.publish(image(value))
        robot.until(lambda: robot.counts().get("pending") == "1", "an image that waits")
    robot.until(lambda: robot.counts().get("dropped.superseded") == "1", "the first to give way")
    assert not robot.means
    numbers.publish(UInt32(data=1))
    numbers.publish(UInt32(data=2))
    robot.until(lambda: robot.means, "a result")
    assert [mean.data for mean in robot.means] == [20]
