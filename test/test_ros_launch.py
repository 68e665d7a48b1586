"""The launch file: what it starts, and what becomes of wrong arguments.

With the real launch and launch_ros where they can be imported (docs/node.md says how); what they start are real
processes over DDS. Everywhere with records of the few classes that the file uses.
"""

import importlib.util
import os
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from bags import bag_path, scans, write_bag
from ros_harness import Robot, cloud, room
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import PointCloud2

from cmp_seg_ros import resources
from cmp_seg_ros.messages import point_cloud2
from cmp_seg_ros.nodes import bag_player, occupancy_node, pseudo_label_node, segmentation_node, semantic_map_node

FILE = resources.resource("launch/segmentation.launch.py")


class Record(SimpleNamespace):
    def __init__(self, *args, **kwargs):
        super().__init__(args=args, **kwargs)


def functions_of(file, monkeypatch):
    """The functions of a launch file, with records instead of actions."""
    contents = {
        "launch": ["LaunchDescription"],
        "launch.actions": [
            *("DeclareLaunchArgument", "EmitEvent", "IncludeLaunchDescription", "OpaqueFunction"),
            "RegisterEventHandler",
        ],
        "launch.event_handlers": ["OnProcessExit"],
        "launch.events": ["Shutdown"],
        "launch.launch_description_sources": ["PythonLaunchDescriptionSource"],
        "launch_ros": [],
        "launch_ros.actions": ["Node"],
    }
    for name, classes in contents.items():
        module = ModuleType(name)
        for class_name in classes:
            setattr(module, class_name, type(class_name, (Record,), {}))
        monkeypatch.setitem(sys.modules, name, module)
    return runpy.run_path(str(file))


@pytest.fixture
def launch_file(monkeypatch):
    functions = functions_of(FILE, monkeypatch)
    functions["nodes"].__globals__["get_package_prefix"] = lambda _package: "/opt/ros"
    return functions


def start(launch_file, **given):
    defaults = {name: default for name, (default, _) in launch_file["ARGUMENTS"].items()}
    started = launch_file["nodes"](defaults | given)
    return [action for action in started if hasattr(action, "executable")]


def takes(module, node):
    """Whether the node of a module has all the parameters that it is given."""
    known = {p.name for p in module.PARAMETERS} | {"use_sim_time"}
    return {name for given in node.parameters[1:] for name in given} <= known


def test_only_the_node_by_default(launch_file):
    (node,) = start(launch_file)
    assert node.executable == "segmentation_node" == node.name
    params_file, *others = node.parameters
    assert yaml.safe_load(Path(params_file).read_text())["/**"]
    assert others == [{"use_sim_time": False}]
    assert dict(node.remappings) == {name: name for name in ("points", "image", "camera_info")}


def test_bag_and_rviz_on_demand(launch_file, tmp_path):
    node, player, rviz = start(
        launch_file,
        **{"bag": str(tmp_path), "points": "lidar/points", "model": "m", "rviz": "true", "rate": "2"},
        **{"fixed_frame": "os1", "namespace": "front", "name": "seg", "use_sim_time": "true"},
    )
    assert node.parameters[1:] == [{"use_sim_time": True, "model": "m"}]
    assert ("points", "lidar/points") in node.remappings
    assert (player.executable, player.arguments) == ("bag_player", [str(tmp_path)])
    (played,) = player.parameters
    assert (played["wait_for_topics"], played["rate"], played["keep_stamps"]) == ("/front/lidar/points", 2.0, True)
    assert rviz.arguments[0] == "-d" and yaml.safe_load(Path(rviz.arguments[1]).read_text())
    assert rviz.arguments[2:] == ["-f", "os1"]
    assert ("/segmentation_node/overlay", "/front/seg/overlay") in rviz.remappings
    assert takes(segmentation_node, node)
    assert set(played) <= {p.name for p in bag_player.PARAMETERS}


def test_the_pseudo_label_node_on_demand(launch_file):
    node, teacher = start(
        launch_file, teacher="mosaic", name="seg", calibration_file="robot.yaml", image="/front/image"
    )
    assert (node.executable, teacher.executable) == ("segmentation_node", "pseudo_label_node")
    assert dict(teacher.remappings)["labelled_points"] == "seg/labelled_points"
    assert dict(teacher.remappings)["image"] == "/front/image"
    assert teacher.parameters[1:] == [{"use_sim_time": False, "teacher": "mosaic", "calibration_file": "robot.yaml"}]
    assert takes(pseudo_label_node, teacher)
    with pytest.raises(RuntimeError, match="teacher_params_file is 'none', which does not exist"):
        start(launch_file, teacher="mosaic", teacher_params_file="none")


@pytest.mark.parametrize("name", ["segmentation", "semantic_map", "occupancy"])
def test_every_argument_is_declared_and_documented(name, monkeypatch):
    functions = functions_of(FILE.with_name(f"{name}.launch.py"), monkeypatch)
    description = functions["generate_launch_description"]()
    declared = [action.args[0] for action in description.args[0] if hasattr(action, "default_value")]
    assert declared == list(functions["ARGUMENTS"])
    documentation = (Path(__file__).parents[1] / "docs" / "node.md").read_text()
    assert all(f"`{name}`" in documentation for name in declared)


def test_the_map_node_alone_and_with_the_segmentation_node(monkeypatch):
    functions = functions_of(FILE.with_name("semantic_map.launch.py"), monkeypatch)
    (node,) = start(functions, odometry="/odom", folder="out")
    assert node.executable == "semantic_map_node" == node.name
    assert dict(node.remappings)["odometry"] == "/odom"
    assert dict(node.remappings)["labelled_points"] == "segmentation_node/labelled_points"
    assert takes(semantic_map_node, node) and node.parameters[1]["folder"] == "out"
    assert yaml.safe_load(Path(node.parameters[0]).read_text())["/**"]
    defaults = {name: default for name, (default, _) in functions["ARGUMENTS"].items()}
    included, _ = functions["nodes"](defaults | {"segmentation": "true", "points": "/ouster/points"})
    assert included.args[0].args[0] == str(FILE) and ("points", "/ouster/points") in included.launch_arguments
    with pytest.raises(RuntimeError, match="params_file is 'none', which does not exist"):
        start(functions, params_file="none")


def test_the_occupancy_node_gets_the_topics_of_its_camera(monkeypatch):
    functions = functions_of(FILE.with_name("occupancy.launch.py"), monkeypatch)
    (node,) = start(functions, image="/front/image", camera_info="/front/camera_info", model="mine")
    assert node.executable == "occupancy_node" == node.name
    assert dict(node.remappings)["image/compressed"] == "/front/image/compressed"
    assert takes(occupancy_node, node) and node.parameters[1]["model"] == "mine"
    assert yaml.safe_load(Path(node.parameters[0]).read_text())["/**"]


def test_rviz_shows_what_the_node_publishes():
    config = yaml.safe_load(resources.resource("config/segmentation.rviz").read_text())
    displays = {d["Name"]: d for d in config["Visualization Manager"]["Displays"]}
    assert displays["Labelled points"]["Topic"]["Value"] == f"/{segmentation_node.NAME}/labelled_points"
    assert displays["Labelled points"]["Color Transformer"] == "RGB8"
    assert displays["Overlay"]["Topic"]["Value"] == f"/{segmentation_node.NAME}/overlay"


# With the real launch.

LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
file, *arguments = sys.argv[1:]
given = [tuple(argument.split(":=", 1)) for argument in arguments]
included = IncludeLaunchDescription(PythonLaunchDescriptionSource(file), launch_arguments=given)
service = LaunchService()
service.include_launch_description(LaunchDescription([included]))
sys.exit(service.run())
"""
PROGRAM = """#!{python}
import os, sys
from cmp_seg_ros.nodes import {name}
open({pids!r}, "a").write(f"{name} {{os.getpid()}}\\n")
{name}.main()
"""


class Launched:
    """`ros2 launch` with arguments, in a domain of its own, and the programs that it starts."""

    def __init__(self, folder, monkeypatch):
        for below in ("logs", "prefix/share/ament_index/resource_index/packages", "prefix/lib/cmp_seg_ros", "other"):
            (folder / below).mkdir(parents=True)
        (folder / "prefix/share/ament_index/resource_index/packages/cmp_seg_ros").touch()
        self.pids = folder / "pids"
        self.pids.touch()
        for name in ("segmentation_node", "bag_player"):
            program = folder / "prefix/lib/cmp_seg_ros" / name
            program.write_text(PROGRAM.format(python=sys.executable, name=name, pids=str(self.pids)))
            program.chmod(0o755)
        (folder / "start.py").write_text(LAUNCH)
        if importlib.util.find_spec("composition_interfaces") is None:  # launch_ros only names it
            (folder / "other/composition_interfaces").mkdir()
            (folder / "other/composition_interfaces/__init__.py").touch()
            (folder / "other/composition_interfaces/srv.py").write_text("class LoadNode: Request = object\n")
        search = [str(folder / "other"), *(path for path in sys.path if path)]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(search))
        monkeypatch.setenv("AMENT_PREFIX_PATH", str(folder / "prefix"))
        monkeypatch.setenv("ROS_LOG_DIR", str(folder / "logs"))
        self.robot = Robot(folder / "out")
        self.script = str(folder / "start.py")

    def start(self, **arguments):
        return self.robot.start(self.script, str(FILE), *(f"{name}:={value}" for name, value in arguments.items()))

    def alive(self):
        """Names of the programs that live."""
        lines = [line.split() for line in self.pids.read_text().splitlines()]
        return [name for name, pid in lines if Path(f"/proc/{pid}").exists()]


@pytest.fixture
def launched(tmp_path, monkeypatch):
    if importlib.util.find_spec("launch_ros") is None:
        pytest.skip("launch and launch_ros are not installed")
    launched = Launched(tmp_path, monkeypatch)
    yield launched
    launched.robot.close()


WRONG = {
    "no rviz": ({"rviz": "true"}, r"rviz:=true needs the package rviz2, which is not installed"),
    "rate": ({"bag": "{bag}", "rate": "abc"}, r"rate is 'abc'; it must be a number"),
    "no parameters": ({"params_file": "/no/such.yaml"}, r"params_file is '/no/such.yaml', which does not exist"),
    "no bag": ({"bag": "/no/such"}, r"bag is '/no/such', which does not exist"),
    "neither yes nor no": ({"respawn": "maybe"}, r"\"maybe\" is not valid"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_end_the_launch_and_leave_nothing_behind(launched, tmp_path, name):
    given, pattern = WRONG[name]
    program = launched.start(**{key: value.format(bag=tmp_path) for key, value in given.items()})
    assert program.wait() == 1
    said = program.out + program.err
    assert re.search(pattern, said) and "Traceback" not in said, said
    assert not launched.alive() and not launched.pids.read_text()


def test_namespace_name_and_log_level(launched, tiny_bundle):
    robot = launched.robot
    program = launched.start(
        namespace="front", name="seg", model=tiny_bundle, engine="reference", log_level="warn", output_profile="hydra"
    )
    labelled = robot.subscribe(PointCloud2, "/front/seg/labelled_points")
    points = robot.publisher(PointCloud2, "/front/points")
    robot.until(lambda: points.publish(cloud(room())) or labelled, "labels")
    assert labelled[-1].point_step == 20, "profile hydra"
    robot.until(lambda: robot.reports and robot.reports[-1].status[0].name == "/front/seg: scans", "a report")
    assert program.stop() == 0
    assert not launched.alive()
    assert "ready after" not in program.out + program.err, "of level info"


def test_a_node_that_dies_comes_back_or_ends_the_launch(launched, tiny_bundle):
    robot = launched.robot
    program = launched.start(respawn="true", model=tiny_bundle, engine="reference")
    points = robot.publisher(PointCloud2, "/points")
    labelled = robot.subscribe(PointCloud2, "/segmentation_node/labelled_points")
    robot.until(lambda: points.publish(cloud(room())) or labelled, "labels")
    os.kill(int(launched.pids.read_text().split()[1]), 9)
    robot.until(lambda: len(launched.pids.read_text().splitlines()) == 2, "another node")
    before = len(labelled)
    robot.until(lambda: points.publish(cloud(room())) or len(labelled) > before, "labels of that")
    assert program.stop() == 0
    program = launched.start(model="/no/such")
    assert program.wait() in (0, 1) and not launched.alive()


def test_a_bag_with_simulated_time_gives_the_clock_and_ends_all(launched, tiny_bundle, tmp_path):
    robot = launched.robot
    path = write_bag(bag_path(tmp_path, "mcap"), "mcap", {"/lidar/points": scans(6)})
    ticks = robot.subscribe(Clock, "/clock")
    labelled = robot.subscribe(PointCloud2, "/segmentation_node/labelled_points")
    program = launched.start(
        bag=path, points="/lidar/points", use_sim_time="true", model=tiny_bundle, engine="reference", rate="2.0"
    )
    robot.until(lambda: len(labelled) == 6 and program.process.poll() is not None, "all labels and the end")
    assert program.wait() == 0 and not launched.alive()
    assert len(ticks) > 10
    second = 1_000_000_000
    assert [point_cloud2.stamp_ns(cloud.header) for cloud in labelled] == [(1000 + i) * second for i in range(6)]
