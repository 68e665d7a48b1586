"""What the launch files share. `launch` is imported where it is used, since only a ROS distribution has it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cmp_seg_ros import resources
from cmp_seg_ros.ros import environment

YES_OR_NO = ["true", "false", "True", "False"]


def existing(argument: str, path: str | Path) -> str:
    """The path, if it is there. Raises RuntimeError, which ros2 launch shows."""
    if not Path(path).exists():
        raise RuntimeError(f"{argument} is '{path}', which does not exist")
    return str(path)


def beside_segmentation(node: Any, given: Mapping[str, str]) -> list[Any]:
    """A node, after the segmentation node if the argument `segmentation` asks for it."""
    from launch.actions import IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    if given["segmentation"].lower() != "true":
        return [node]
    other = PythonLaunchDescriptionSource(str(resources.resource("launch/segmentation.launch.py")))
    passed = {name: given[name] for name in ("points", "namespace", "calibration_file", "use_sim_time")}
    return [IncludeLaunchDescription(other, launch_arguments=list(passed.items())), node]


def description(
    arguments: Mapping[str, tuple[str, str]], choices: Mapping[str, list[str]], nodes: Callable[[Any], list[Any]]
) -> Any:
    """The LaunchDescription of a file.

    Args:
        arguments: default and description by name.
        choices: allowed values of some of them.
        nodes: gives what to start, from a LaunchContext.
    """
    from launch import LaunchDescription  # type: ignore[attr-defined]  # mypy finds our folder launch/
    from launch.actions import DeclareLaunchArgument, OpaqueFunction

    environment.prepare()  # inherited by every program started here: large clouds need it at their publisher
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices.get(name))
        for name, (default, text) in arguments.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=nodes)])
