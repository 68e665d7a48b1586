"""The README's commands: each is one that the program takes, and the quick ones do what they say."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cmp_seg_ros.cli.main import app
from cmp_seg_ros.nodes.segmentation_node import PARAMETERS
from cmp_seg_ros.simulation.recorder import record
from cmp_seg_ros.simulation.rig import RigConfig

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = [block for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE) if not kind]
LINES = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("cmp-seg ")] + re.findall(r"`(cmp-seg [^`]+)`", TEXT)


def test_there_are_commands_to_try() -> None:
    assert len(COMMANDS) > 8 and {"label", "evaluate", "adapt", "train", "simulate"} <= {c.split()[1] for c in COMMANDS}


@pytest.mark.parametrize("line", sorted(set(COMMANDS)))
def test_every_command_line_is_taken(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, *arguments = shlex.split(line)[1:]
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    while arguments and hasattr(command, "commands"):  # a group
        command = command.commands[arguments.pop(0)]
    if not arguments:  # a command's name in a sentence
        return
    monkeypatch.setattr(command, "callback", lambda **_: None)
    command.main(arguments, standalone_mode=False)


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("make ")])
def test_make_has_the_target(line: str) -> None:
    assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_nodes_and_launch_files_have_these_arguments() -> None:
    [node] = [line for line in LINES if line.startswith("segmentation_node ")]
    [launch] = [line for line in LINES if line.startswith("ros2 launch ")]
    assert set(re.findall(r"-p (\w+):=", node)) <= {parameter.name for parameter in PARAMETERS}
    _, _, _, file, *arguments = launch.split()
    source = (ROOT / "launch" / file).read_text()
    assert all(f'"{argument.split(":=")[0]}"' in source for argument in arguments)


def test_label_and_evaluate_do_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(record(RigConfig(3, seconds=0.2, cameras=()), tmp_path / "drive", 1)) == [1, 2]
    shown = [
        c for c in COMMANDS if c.split()[1] in ("label", "evaluate") and "drive" in c.split() and "--model" not in c
    ]
    assert len(shown) >= 2
    for line in shown:
        ran = CliRunner().invoke(app, [*shlex.split(line)[1:], "--model", str(tiny_bundle), "--engine", "cpu-fp32"])
        assert ran.exit_code == 0, (line, ran.output)
    assert np.load("labels/scans/000001.npz")["label"].shape == (16384,)
