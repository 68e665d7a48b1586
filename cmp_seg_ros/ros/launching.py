"""What the launch files share. `launch` is imported where it is used, since only a ROS distribution has it."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from cmp_seg_ros import resources
from cmp_seg_ros.ros import environment

PACKAGE = "cmp_seg_ros"
YES_OR_NO = ["true", "false", "True", "False"]


def existing(argument: str, path: str | Path) -> str:
    """The path, if it is there. Raises RuntimeError, which ros2 launch shows."""
    if not Path(path).exists():
        raise RuntimeError(f"{argument} is '{path}', which does not exist")
    return str(path)


def is_true(text: str) -> bool:
    """The value of an argument with the choices YES_OR_NO."""
    return text.lower() == "true"


def node_action(
    executable: str,
    given: Mapping[str, str],
    own: Iterable[str],
    remappings: Mapping[str, str],
    name: str = "",
    params_file: str = "params_file",
    **options: Any,
) -> Any:
    """The action that starts one of our nodes.

    Args:
        given: the arguments of the launch file.
        own: arguments that are parameters of the node, unless they are empty.
        name: of the node, by default the argument `name`.
        params_file: the argument with its parameter file, by default config/EXECUTABLE.yaml.
        options: of launch_ros.actions.Node.
    """
    from launch_ros.actions import Node

    file = existing(params_file, given[params_file] or resources.resource(f"config/{executable}.yaml"))
    return Node(
        package=PACKAGE,
        executable=executable,
        namespace=given["namespace"],
        name=name or given["name"],
        output="screen",
        parameters=[
            file,
            {"use_sim_time": is_true(given["use_sim_time"])} | {key: given[key] for key in own if given[key]},
        ],
        remappings=list(remappings.items()),
        **options,
    )


def beside_segmentation(node: Any, given: Mapping[str, str]) -> list[Any]:
    """A node, after the segmentation node if the argument `segmentation` asks for it."""
    from launch.actions import IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    if not is_true(given["segmentation"]):
        return [node]
    other = PythonLaunchDescriptionSource(str(resources.resource("launch/segmentation.launch.py")))
    passed = {name: given[name] for name in ("points", "namespace", "calibration_file", "use_sim_time")}
    return [IncludeLaunchDescription(other, launch_arguments=list(passed.items())), node]


def arguments_beside_segmentation(node: str, output: str) -> dict[str, tuple[str, str]]:
    """Arguments of every node that `beside_segmentation` starts; `output` is an example of its topics."""
    return {
        "namespace": ("", "Namespace of the node"),
        "name": (node, f"Name of the node; its outputs are NAMESPACE/NAME/{output} and so on"),
        "params_file": ("", f"Parameters of the node; empty: config/{node}.yaml"),
        "calibration_file": ("", "Calibration of the robot's sensors; empty: what params_file says"),
        "segmentation": ("false", "Whether to start the segmentation node, too"),
        "points": ("points", "Topic of the lidar's clouds, for the segmentation node"),
        "use_sim_time": ("false", "Take the time from /clock"),
    }


def description(
    arguments: Mapping[str, tuple[str, str]],
    nodes: Callable[[dict[str, str]], list[Any]],
    choices: Mapping[str, list[str]] | None = None,
) -> Any:
    """The LaunchDescription of a file.

    Args:
        arguments: default and description by name; those of YES_OR_NO are `true` or `false` by default.
        nodes: gives what to start, from the values of the arguments.
        choices: allowed values of some arguments beside those.
    """
    from launch import LaunchDescription  # type: ignore[attr-defined]  # mypy finds our folder launch/
    from launch.actions import DeclareLaunchArgument, OpaqueFunction

    environment.prepare()  # inherited by every program started here: large clouds need it at their publisher
    declared = []
    for name, (default, text) in arguments.items():
        allowed = YES_OR_NO if default in YES_OR_NO else (choices or {}).get(name)
        declared.append(DeclareLaunchArgument(name, default_value=default, description=text, choices=allowed))

    def start(context: Any) -> list[Any]:
        return nodes({name: context.launch_configurations[name] for name in arguments})

    return LaunchDescription([*declared, OpaqueFunction(function=start)])
