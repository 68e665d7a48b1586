"""The launch file starts programs that exist, with parameters and topics that they know.

Where launch is not installed, the few of its classes that the file uses are stood in for by records of their arguments.
"""

import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml

from cmp_seg_ros import resources
from cmp_seg_ros.nodes import bag_player, segmentation_node


class Record(SimpleNamespace):
    def __init__(self, *args, **kwargs):
        super().__init__(args=args, **kwargs)


@pytest.fixture
def launch_file(monkeypatch):
    """The functions of the launch file, with records instead of actions."""
    contents = {
        "launch": ["LaunchContext", "LaunchDescription"],
        "launch.actions": ["DeclareLaunchArgument", "EmitEvent", "OpaqueFunction", "RegisterEventHandler"],
        "launch.event_handlers": ["OnProcessExit"],
        "launch.events": ["Shutdown"],
        "launch_ros": [],
        "launch_ros.actions": ["Node"],
    }
    for name, classes in contents.items():
        module = ModuleType(name)
        for class_name in classes:
            setattr(module, class_name, type(class_name, (Record,), {}))
        monkeypatch.setitem(sys.modules, name, module)
    return runpy.run_path(str(resources.resource("launch/segmentation.launch.py")))


def start(launch_file, **given):
    defaults = {name: default for name, (default, _) in launch_file["ARGUMENTS"].items()}
    started = launch_file["nodes"](SimpleNamespace(launch_configurations=defaults | given))
    return [action for action in started if hasattr(action, "executable")]


def test_only_the_node_by_default(launch_file):
    (node,) = start(launch_file)
    assert node.executable == "segmentation_node" == node.name
    params_file, *others = node.parameters
    assert yaml.safe_load(Path(params_file).read_text())["/**"]
    assert others == [{"use_sim_time": False}]
    assert dict(node.remappings) == {name: f"/{name}" for name in ("points", "image", "camera_info")}


def test_bag_and_rviz_on_demand(launch_file):
    node, player, rviz = start(
        launch_file, bag="drive", points="/lidar/points", model="m", rviz="true", rate="2", fixed_frame="os1"
    )
    assert {"model": "m"} in node.parameters
    assert ("points", "/lidar/points") in node.remappings
    assert (player.executable, player.arguments) == ("bag_player", ["drive"])
    assert player.parameters[0]["wait_for_topics"] == "/lidar/points" and player.parameters[0]["rate"] == 2.0
    assert rviz.arguments[0] == "-d" and yaml.safe_load(Path(rviz.arguments[1]).read_text())
    assert rviz.arguments[2:] == ["-f", "os1"]
    known = {p.name for p in segmentation_node.PARAMETERS} | {"use_sim_time"}
    assert {name for given in node.parameters[1:] for name in given} <= known
    assert set(player.parameters[0]) <= {p.name for p in bag_player.PARAMETERS}


def test_every_argument_is_declared(launch_file):
    description = launch_file["generate_launch_description"]()
    declared = [action.args[0] for action in description.args[0] if hasattr(action, "default_value")]
    assert declared == list(launch_file["ARGUMENTS"])


def test_rviz_shows_what_the_node_publishes():
    config = yaml.safe_load(resources.resource("config/segmentation.rviz").read_text())
    displays = {d["Name"]: d for d in config["Visualization Manager"]["Displays"]}
    assert displays["Labelled points"]["Topic"]["Value"] == f"/{segmentation_node.NAME}/labelled_points"
    assert displays["Labelled points"]["Color Transformer"] == "RGB8"
    assert displays["Overlay"]["Topic"]["Value"] == f"/{segmentation_node.NAME}/overlay"
