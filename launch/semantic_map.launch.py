"""The semantic map node; with segmentation:=true the segmentation node before it.

ros2 launch cmp_seg_ros semantic_map.launch.py odometry:=/odom calibration_file:=robot.yaml
ros2 launch cmp_seg_ros semantic_map.launch.py segmentation:=true points:=/ouster/points odometry:=/odom
"""

from launch import LaunchDescription

from cmp_seg_ros.ros import launching

NODE = "semantic_map_node"
TOPICS = {
    "labelled_points": ("segmentation_node/labelled_points", "Topic of the labelled clouds"),
    "label_space": ("segmentation_node/label_space", "Topic of their label space"),
    "odometry": ("odom", "Topic of the odometry"),
}
ARGUMENTS = {
    **TOPICS,
    "folder": ("", "Where ~/save writes the map; empty: what params_file says"),
    **launching.arguments_beside_segmentation(NODE, "map"),
}


def nodes(given: dict[str, str]) -> list:
    """What to start, by the arguments."""
    topics = {name: given[name] for name in TOPICS}
    node = launching.node_action(NODE, given, ("calibration_file", "folder"), topics)
    return launching.beside_segmentation(node, given)


def generate_launch_description() -> LaunchDescription:
    """Arguments and nodes."""
    return launching.description(ARGUMENTS, nodes)
