"""The occupancy node, and on demand the segmentation node beside it.

ros2 launch cmp_seg_ros occupancy.launch.py image:=/camera/image camera_info:=/camera/info calibration_file:=robot.yaml
ros2 launch cmp_seg_ros occupancy.launch.py image:=/camera/image segmentation:=true points:=/ouster/points
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node

from cmp_seg_ros import resources
from cmp_seg_ros.ros import environment

NODE = "occupancy_node"
YES_OR_NO = ["true", "false", "True", "False"]
ARGUMENTS = {
    "image": ("image", "Topic of the camera's images; compressed ones are expected at IMAGE/compressed"),
    "camera_info": ("camera_info", "Topic of the camera's calibration"),
    "namespace": ("", "Namespace of the node"),
    "name": (NODE, "Name of the node; its outputs are NAMESPACE/NAME/occupied_voxels and so on"),
    "params_file": ("", "Parameters of the node; empty: config/occupancy_node.yaml"),
    "model": ("", "Model bundle; empty: what params_file says"),
    "calibration_file": ("", "Calibration of the robot's sensors; empty: what params_file says"),
    "image_transport": ("", "raw or compressed; empty: what params_file says"),
    "log_level": ("info", "Of the node: debug, info, warn, error or fatal"),
    "segmentation": ("false", "Whether to start the segmentation node too, with its own defaults"),
    "points": ("points", "Topic of the lidar's clouds, for the segmentation node"),
    "use_sim_time": ("false", "Take the time from /clock"),
}
CHOICES = {
    "log_level": ["debug", "info", "warn", "error", "fatal"],
    "segmentation": YES_OR_NO,
    "use_sim_time": YES_OR_NO,
}


def nodes(context: LaunchContext) -> list:
    """What to start, by the arguments."""
    given = {name: context.launch_configurations[name] for name in ARGUMENTS}
    file = Path(given["params_file"] or resources.resource(f"config/{NODE}.yaml"))
    if not file.exists():
        raise RuntimeError(f"params_file is '{file}', which does not exist")
    own = ("model", "calibration_file", "image_transport")
    parameters = [str(file), {"use_sim_time": given["use_sim_time"].lower() == "true"}]
    parameters += [{name: given[name]} for name in own if given[name]]
    topics = {"image": given["image"], "image/compressed": f"{given['image']}/compressed"}
    topics["camera_info"] = given["camera_info"]
    started: list = [
        Node(
            package="cmp_seg_ros",
            executable=NODE,
            namespace=given["namespace"],
            name=given["name"],
            output="screen",
            parameters=parameters,
            remappings=list(topics.items()),
            ros_arguments=["--log-level", given["log_level"]],
        )
    ]
    if given["segmentation"].lower() == "true":
        source = PythonLaunchDescriptionSource(str(resources.resource("launch/segmentation.launch.py")))
        shared = {name: given[name] for name in ("namespace", "points", "image", "camera_info", "use_sim_time")}
        shared |= {"calibration_file": given["calibration_file"], "name": "segmentation_node", "params_file": ""}
        shared |= {"model": "", "engine": "", "output_profile": ""}
        started.append(IncludeLaunchDescription(source, launch_arguments=shared.items()))
    return started


def generate_launch_description() -> LaunchDescription:
    """Arguments and nodes."""
    environment.prepare()
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description, choices=CHOICES.get(name))
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=nodes)])
