"""The occupancy node; with segmentation:=true the segmentation node beside it.

ros2 launch cmp_seg_ros occupancy.launch.py image:=/camera/image camera_info:=/camera/info calibration_file:=robot.yaml
"""

from launch import LaunchContext, LaunchDescription
from launch_ros.actions import Node

from cmp_seg_ros import resources
from cmp_seg_ros.ros import launching

NODE = "occupancy_node"
ARGUMENTS = {
    "image": ("image", "Topic of the images (without /compressed)"),
    "camera_info": ("camera_info", "Topic of their camera info"),
    "namespace": ("", "Namespace of the node"),
    "name": (NODE, "Name of the node; its outputs are NAMESPACE/NAME/occupied and so on"),
    "params_file": ("", "Parameters of the node; empty: config/occupancy_node.yaml"),
    "calibration_file": ("", "Calibration of the robot's sensors; empty: what params_file says"),
    "model": ("", "Model bundle; empty: what params_file says"),
    "segmentation": ("false", "Whether to start the segmentation node, too"),
    "points": ("points", "Topic of the lidar's clouds, for the segmentation node"),
    "use_sim_time": ("false", "Take the time from /clock"),
}
CHOICES = dict.fromkeys(("segmentation", "use_sim_time"), launching.YES_OR_NO)


def nodes(context: LaunchContext) -> list:
    """What to start, by the arguments."""
    given = {name: context.launch_configurations[name] for name in ARGUMENTS}
    params = launching.existing("params_file", given["params_file"] or resources.resource(f"config/{NODE}.yaml"))
    own = {name: given[name] for name in ("calibration_file", "model") if given[name]}
    image = given["image"]
    node = Node(
        package="cmp_seg_ros",
        executable=NODE,
        namespace=given["namespace"],
        name=given["name"],
        output="screen",
        parameters=[params, {"use_sim_time": given["use_sim_time"].lower() == "true"}, own],
        remappings=[
            ("image", image),
            ("image/compressed", f"{image}/compressed"),
            ("camera_info", given["camera_info"]),
        ],
    )
    return launching.beside_segmentation(node, given)


def generate_launch_description() -> LaunchDescription:
    """Arguments and nodes."""
    return launching.description(ARGUMENTS, CHOICES, nodes)
