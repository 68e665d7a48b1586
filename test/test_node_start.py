"""How the segmentation node starts: its parameters, wrong ones, and the way out while it loads."""

import re
import shutil
import signal

import numpy as np
import pytest
import yaml

from cmp_seg_ros import resources
from cmp_seg_ros.nodes import bag_player, occupancy_node, pseudo_label_node, segmentation_node, semantic_map_node
from cmp_seg_ros.ros import runner

LOADING = """
import time
from cmp_seg_ros import segmenter
from cmp_seg_ros.nodes import segmentation_node

segmenter.Segmenter.from_bundle = lambda *_, **__: (print("loading", flush=True), time.sleep(600))
segmentation_node.main()
"""


def test_it_can_be_stopped_while_an_engine_is_built(robot, tmp_path):
    """Which may take minutes: whoever launched it would kill it."""
    (tmp_path / "slow.py").write_text(LOADING)
    program = robot.start(str(tmp_path / "slow.py"))
    robot.until(lambda: "loading" in program.out, "the model to be loaded")
    robot.until(lambda: robot.node.count_publishers("/diagnostics"), "the node")
    assert program.stop(signal.SIGINT) == 0
    assert "stopped while loading the model" in program.err


@pytest.fixture(scope="module")
def broken(tiny_bundle, tmp_path_factory):
    """A bundle and a calibration that cannot be right."""
    folder = tmp_path_factory.mktemp("broken")
    shutil.copytree(tiny_bundle, folder / "damaged")
    weights = (folder / "damaged" / "weights.safetensors").read_bytes()
    (folder / "damaged" / "weights.safetensors").write_bytes(weights[:-100])
    skewed = {"lidars": {"os1": {"T_base_lidar": np.diag([1.0, 1.0, 2.0, 1.0]).tolist()}}}
    (folder / "skewed.yaml").write_text(yaml.safe_dump(skewed))
    return folder


WRONG = {
    "no such bundle": (["-p", "model:=nosuch"], r"no bundle 'nosuch'"),
    "wrong type": (["-p", "sync_deadline:=soon"], r"parameter sync_deadline is 'soon'; it must be a number from 0.0"),
    "out of range": (["-p", "threads:=-3"], r"parameter threads is -3; it must be an integer from 0 to 256"),
    "unknown choice": (["-p", "output_profile:=x"], r"output_profile is 'x'; it must be one of: default, hydra"),
    "unknown class": (
        ["-p", "model:={bundle}", "-p", "filter.classes:=rug"],
        r"filter.classes has 'rug', .*: wall, fl",
    ),
    "unknown engine": (["-p", "model:={bundle}", "-p", "engine:=steam"], r"steam"),
    "skewed calibration": (["-p", "calibration_file:={broken}/skewed.yaml"], r"T_base_lidar.*not orthonormal"),
    "no such space": (["-p", "model:={bundle}", "-p", "label_space:=nosuch"], r"no label space 'nosuch'"),
    "bad arguments": (["-p", "model"], r"[Pp]arameter|parse"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_start_is_one_line_and_exit_status_1(broken, tiny_bundle, capfd, monkeypatch, name):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")
    arguments, pattern = WRONG[name]
    arguments = ["--ros-args", *(argument.format(broken=broken, bundle=tiny_bundle) for argument in arguments)]
    status = runner.run(segmentation_node.NAME, segmentation_node.SegmentationNode, arguments)
    err = capfd.readouterr().err
    assert status == 1
    assert "Traceback" not in err
    others = ("[rcl]", "rmw_fastrtps", "[INFO]")
    lines = [line for line in err.splitlines() if line.strip() and not any(other in line for other in others)]
    assert len(lines) == 1 and lines[0].startswith("[FATAL]") and re.search(pattern, lines[0]), err


@pytest.mark.parametrize("main", [segmentation_node.main, bag_player.main])
@pytest.mark.parametrize("wrong", [("-p", "rate"), ("-r", "points"), ("--params-file", "/no/such.yaml")])
def test_arguments_that_ros_refuses_are_one_line(monkeypatch, main, wrong):
    monkeypatch.setattr("sys.argv", ["program", "--ros-args", *wrong])
    with pytest.raises(SystemExit, match=r"^(segmentation_node|bag_player): error: Failed to parse ROS arguments.*$"):
        main()


def test_a_wrong_start_ends_the_process(broken, robot):
    program = robot.start("segmentation_node", "--ros-args", "-p", f"model:={broken / 'damaged'}")
    assert program.wait() == 1
    assert len(program.err.splitlines()) == 1 and re.search("weights.safetensors is damaged", program.err)


def test_help_lists_every_parameter(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["segmentation_node", "-h"])
    with pytest.raises(SystemExit) as end:
        segmentation_node.main()
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"  {p.name} = " in shown and p.description in shown for p in segmentation_node.PARAMETERS)


@pytest.mark.parametrize(
    "node", [segmentation_node, semantic_map_node, occupancy_node, pseudo_label_node], ids=lambda node: node.NAME
)
def test_parameter_files_hold_the_defaults(node):
    text = resources.resource(f"config/{node.NAME}.yaml").read_text()
    given = yaml.safe_load(text)["/**"]["ros__parameters"]
    flat = {f"filter.{name}": value for name, value in given.pop("filter", {}).items()}
    assert given | flat == {p.name: p.default for p in node.PARAMETERS}
