"""The occupancy node; with segmentation:=true the segmentation node beside it.

ros2 launch cmp_seg_ros occupancy.launch.py image:=/camera/image camera_info:=/camera/camera_info \\
    calibration_file:=robot.yaml
"""

from launch import LaunchDescription

from cmp_seg_ros.ros import launching

NODE = "occupancy_node"
ARGUMENTS = {
    "image": ("image", "Topic of the images (without /compressed)"),
    "camera_info": ("camera_info", "Topic of their camera info"),
    "model": ("", "Model bundle; empty: what params_file says"),
    **launching.arguments_beside_segmentation(NODE, "occupied"),
}


def nodes(given: dict[str, str]) -> list:
    """What to start, by the arguments."""
    topics = {name: given[name] for name in ("image", "camera_info")}
    topics["image/compressed"] = f"{given['image']}/compressed"
    node = launching.node_action(NODE, given, ("calibration_file", "model"), topics)
    return launching.beside_segmentation(node, given)


def generate_launch_description() -> LaunchDescription:
    """Arguments and nodes."""
    return launching.description(ARGUMENTS, nodes)
