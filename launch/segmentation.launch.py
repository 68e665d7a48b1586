"""The segmentation node, and on demand the pseudo-label node, a bag that plays, and RViz that shows.

ros2 launch cmp_seg_ros segmentation.launch.py points:=/ouster/points calibration_file:=robot.yaml rviz:=true
ros2 launch cmp_seg_ros segmentation.launch.py bag:=drive points:=/lidar/points rviz:=true
ros2 launch cmp_seg_ros segmentation.launch.py teacher:=mosaic points:=/ouster/points calibration_file:=robot.yaml
ros2 launch cmp_seg_ros segmentation.launch.py namespace:=front name:=seg log_level:=debug respawn:=true
"""

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchDescription
from launch.actions import EmitEvent, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch_ros.actions import Node

from cmp_seg_ros import resources
from cmp_seg_ros.ros.launching import PACKAGE, description, existing, is_true, node_action

NODE = "segmentation_node"
TEACHER_NODE = "pseudo_label_node"
ARGUMENTS = {
    "points": ("points", "Topic of the lidar's clouds; without a leading / it lies in the namespace"),
    "image": ("image", "Topic of the camera's images, for the overlay"),
    "camera_info": ("camera_info", "Topic of the camera's calibration, for the overlay"),
    "namespace": ("", "Namespace of the node"),
    "name": (NODE, "Name of the node; its outputs are NAMESPACE/NAME/labelled_points and so on"),
    "params_file": ("", "Parameters of the node; empty: config/segmentation_node.yaml"),
    "model": ("", "Model bundle; empty: what params_file says"),
    "engine": ("", "Engine; empty: what params_file says"),
    "calibration_file": ("", "Calibration of the robot's sensors; empty: what params_file says"),
    "output_profile": ("", "Layout of the labelled cloud; empty: what params_file says"),
    "teacher": ("", "Teacher of the pseudo-label node, such as mosaic; empty: that node is not started"),
    "teacher_params_file": ("", "Parameters of the pseudo-label node; empty: config/pseudo_label_node.yaml"),
    "log_level": ("info", "Of the node: debug, info, warn, error or fatal"),
    "respawn": ("false", "Whether the node starts again when it ends, two seconds later"),
    "bag": ("", "A bag to play; everything ends with it"),
    "rate": ("1.0", "How many times as fast as recorded the bag is played"),
    "rviz": ("false", "Whether to show the labelled points"),
    "fixed_frame": ("lidar", "Frame that RViz shows them in"),
    "use_sim_time": ("false", "Take the time from /clock; a bag is then played with its own stamps, and gives /clock"),
}
CHOICES = {"log_level": ["debug", "info", "warn", "error", "fatal"]}


def nodes(given: dict[str, str]) -> list:
    """What to start, by the arguments. All of them are checked before anything starts."""
    respawn = is_true(given["respawn"])
    log = ["--log-level", given["log_level"]]
    own = "model", "engine", "calibration_file", "output_profile"
    topics = {name: given[name] for name in ("points", "image", "camera_info")}
    node = node_action(NODE, given, own, topics, ros_arguments=log, respawn=respawn, respawn_delay=2.0)
    started = [node]
    if not respawn:
        started.append(ending_with(node))
    if given["teacher"]:  # fed by the segmentation node, which goes on without it
        own, topics = ("teacher", "calibration_file"), {name: given[name] for name in ("image", "camera_info")}
        topics |= {name: f"{given['name']}/{name}" for name in ("labelled_points", "label_space")}
        started.append(
            node_action(TEACHER_NODE, given, own, topics, TEACHER_NODE, "teacher_params_file", ros_arguments=log)
        )
    if given["bag"]:
        started += player(given)
    if is_true(given["rviz"]):
        started.append(rviz(given))
    return started


def player(given: dict[str, str]) -> list:
    """The bag player, at whose end everything ends."""
    try:
        rate = float(given["rate"])
    except ValueError:
        raise RuntimeError(f"rate is '{given['rate']}'; it must be a number, such as rate:=2.0") from None
    topic = given["points"]
    if not topic.startswith("/"):
        topic = full_name(given, topic)
    played = {
        "rate": rate,
        "keep_stamps": is_true(given["use_sim_time"]),
        "wait_for_subscribers": 120.0,  # the node subscribes once its model is loaded
        "wait_for_topics": topic,
    }
    action = Node(
        package=PACKAGE,
        executable="bag_player",
        name="bag_player",
        output="screen",
        arguments=[existing("bag", given["bag"])],
        parameters=[played],
    )
    return [action, ending_with(action)]


def rviz(given: dict[str, str]) -> Node:
    """RViz, with the topics of the node under its name and namespace."""
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        raise RuntimeError(
            "rviz:=true needs the package rviz2, which is not installed; install it, or leave rviz out"
        ) from None
    full = full_name(given, given["name"])
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(resources.resource("config/segmentation.rviz")), "-f", given["fixed_frame"]],
        parameters=[{"use_sim_time": is_true(given["use_sim_time"])}],
        remappings=[(f"/{NODE}/{topic}", f"{full}/{topic}") for topic in ("labelled_points", "overlay")],
    )


def full_name(given: dict[str, str], name: str) -> str:
    """A name in the namespace of the node."""
    return "/".join(["", *(part for part in (given["namespace"].strip("/"), name) if part)])


def ending_with(action: Node) -> RegisterEventHandler:
    """Everything ends when the action does."""
    return RegisterEventHandler(OnProcessExit(target_action=action, on_exit=[EmitEvent(event=Shutdown())]))


def generate_launch_description() -> LaunchDescription:
    """Arguments and nodes."""
    return description(ARGUMENTS, nodes, CHOICES)
