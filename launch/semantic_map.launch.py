"""The semantic map node; with segmentation:=true the segmentation node before it.

ros2 launch cmp_seg_ros semantic_map.launch.py odometry:=/odom calibration_file:=robot.yaml
ros2 launch cmp_seg_ros semantic_map.launch.py segmentation:=true points:=/ouster/points odometry:=/odom
"""

from launch import LaunchContext, LaunchDescription
from launch_ros.actions import Node

from cmp_seg_ros import resources
from cmp_seg_ros.ros import launching

NODE = "semantic_map_node"
ARGUMENTS = {
    "labelled_points": ("segmentation_node/labelled_points", "Topic of the labelled clouds"),
    "label_space": ("segmentation_node/label_space", "Topic of their label space"),
    "odometry": ("odom", "Topic of the odometry"),
    "namespace": ("", "Namespace of the node"),
    "name": (NODE, "Name of the node; its outputs are NAMESPACE/NAME/map and so on"),
    "params_file": ("", "Parameters of the node; empty: config/semantic_map_node.yaml"),
    "calibration_file": ("", "Calibration of the robot's sensors; empty: what params_file says"),
    "folder": ("", "Where ~/save writes the map; empty: what params_file says"),
    "segmentation": ("false", "Whether to start the segmentation node, too"),
    "points": ("points", "Topic of the lidar's clouds, for the segmentation node"),
    "use_sim_time": ("false", "Take the time from /clock"),
}
CHOICES = dict.fromkeys(("segmentation", "use_sim_time"), launching.YES_OR_NO)


def nodes(context: LaunchContext) -> list:
    """What to start, by the arguments."""
    given = {name: context.launch_configurations[name] for name in ARGUMENTS}
    params = launching.existing("params_file", given["params_file"] or resources.resource(f"config/{NODE}.yaml"))
    own = {name: given[name] for name in ("calibration_file", "folder") if given[name]}
    node = Node(
        package="cmp_seg_ros",
        executable=NODE,
        namespace=given["namespace"],
        name=given["name"],
        output="screen",
        parameters=[params, {"use_sim_time": given["use_sim_time"].lower() == "true"}, own],
        remappings=[(name, given[name]) for name in ("labelled_points", "label_space", "odometry")],
    )
    return launching.beside_segmentation(node, given)


def generate_launch_description() -> LaunchDescription:
    """Arguments and nodes."""
    return launching.description(ARGUMENTS, CHOICES, nodes)
