"""The segmentation node, and on demand the pseudo-label node, a bag that plays, and RViz that shows.

ros2 launch cmp_seg_ros segmentation.launch.py points:=/ouster/points calibration_file:=robot.yaml rviz:=true
ros2 launch cmp_seg_ros segmentation.launch.py bag:=drive points:=/lidar/points rviz:=true
ros2 launch cmp_seg_ros segmentation.launch.py teacher:=mosaic points:=/ouster/points calibration_file:=robot.yaml
ros2 launch cmp_seg_ros segmentation.launch.py namespace:=front name:=seg log_level:=debug respawn:=true
"""

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.actions import EmitEvent, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch_ros.actions import Node

from cmp_seg_ros import resources
from cmp_seg_ros.ros.launching import YES_OR_NO, description, existing

PACKAGE = "cmp_seg_ros"
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
CHOICES = {
    "log_level": ["debug", "info", "warn", "error", "fatal"],
    "respawn": YES_OR_NO,
    "rviz": YES_OR_NO,
    "use_sim_time": YES_OR_NO,
}


def nodes(context: LaunchContext) -> list:
    """What to start, by the arguments. All of them are checked before anything starts."""
    given = {name: context.launch_configurations[name] for name in ARGUMENTS}
    yes = {name: given[name].lower() == "true" for name in ("respawn", "rviz", "use_sim_time")}
    sim_time = {"use_sim_time": yes["use_sim_time"]}
    parameters = [existing("params_file", given["params_file"] or resources.resource(f"config/{NODE}.yaml")), sim_time]
    parameters += [
        {name: given[name]} for name in ("model", "engine", "calibration_file", "output_profile") if given[name]
    ]
    node = Node(
        package=PACKAGE,
        executable=NODE,
        namespace=given["namespace"],
        name=given["name"],
        output="screen",
        parameters=parameters,
        remappings=[(name, given[name]) for name in ("points", "image", "camera_info")],
        ros_arguments=["--log-level", given["log_level"]],
        respawn=yes["respawn"],
        respawn_delay=2.0,
    )
    started = [node]
    if not yes["respawn"]:
        started.append(ending_with(node))
    if given["teacher"]:
        started.append(teacher(given, sim_time))
    if given["bag"]:
        started += player(given, yes["use_sim_time"])
    if yes["rviz"]:
        started.append(rviz(given, sim_time))
    return started


def teacher(given: dict[str, str], sim_time: dict[str, bool]) -> Node:
    """The pseudo-label node, fed by the segmentation node. The segmentation goes on without it."""
    path = given["teacher_params_file"] or resources.resource(f"config/{TEACHER_NODE}.yaml")
    own = {name: given[name] for name in ("teacher", "calibration_file") if given[name]}
    remapped = {name: f"{given['name']}/{name}" for name in ("labelled_points", "label_space")}
    remapped |= {name: given[name] for name in ("image", "camera_info")}
    return Node(
        package=PACKAGE,
        executable=TEACHER_NODE,
        namespace=given["namespace"],
        name=TEACHER_NODE,
        output="screen",
        parameters=[existing("teacher_params_file", path), sim_time, own],
        remappings=list(remapped.items()),
        ros_arguments=["--log-level", given["log_level"]],
    )


def player(given: dict[str, str], keep_stamps: bool) -> list:
    """The bag player, at whose end everything ends."""
    try:
        rate = float(given["rate"])
    except ValueError:
        raise RuntimeError(f"rate is '{given['rate']}'; it must be a number, such as rate:=2.0") from None
    topic = given["points"]
    if not topic.startswith("/"):
        topic = "/".join(["", *(part for part in (given["namespace"].strip("/"), topic) if part)])
    played = {
        "rate": rate,
        "keep_stamps": keep_stamps,
        "wait_for_subscribers": 120.0,  # the node subscribes once its model is loaded
        "wait_for_topics": topic,
    }
    bag = str(existing("bag", given["bag"]))
    action = Node(
        package=PACKAGE,
        executable="bag_player",
        name="bag_player",
        output="screen",
        arguments=[bag],
        parameters=[played],
    )
    return [action, ending_with(action)]


def rviz(given: dict[str, str], sim_time: dict[str, bool]) -> Node:
    """RViz, with the topics of the node under its name and namespace."""
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        raise RuntimeError(
            "rviz:=true needs the package rviz2, which is not installed; install it, or leave rviz out"
        ) from None
    full = "/".join(["", *(part for part in (given["namespace"].strip("/"), given["name"]) if part)])
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(resources.resource("config/segmentation.rviz")), "-f", given["fixed_frame"]],
        parameters=[sim_time],
        remappings=[(f"/{NODE}/{topic}", f"{full}/{topic}") for topic in ("labelled_points", "overlay")],
    )


def ending_with(action: Node) -> RegisterEventHandler:
    """Everything ends when the action does."""
    return RegisterEventHandler(OnProcessExit(target_action=action, on_exit=[EmitEvent(event=Shutdown())]))


def generate_launch_description() -> LaunchDescription:
    """Arguments and nodes."""
    return description(ARGUMENTS, CHOICES, nodes)
