"""The segmentation node, and on demand a bag that plays and RViz that shows.

ros2 launch cmp_seg_ros segmentation.launch.py points:=/ouster/points calibration_file:=robot.yaml rviz:=true
ros2 launch cmp_seg_ros segmentation.launch.py bag:=drive points:=/lidar/points rviz:=true
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch_ros.actions import Node

from cmp_seg_ros import resources
from cmp_seg_ros.ros import environment

PACKAGE = "cmp_seg_ros"
ARGUMENTS = {
    "points": ("/points", "Topic of the lidar's clouds"),
    "image": ("/image", "Topic of the camera's images, for the overlay"),
    "camera_info": ("/camera_info", "Topic of the camera's calibration, for the overlay"),
    "params_file": ("", "Parameters of the node; empty: config/segmentation_node.yaml"),
    "model": ("", "Model bundle; empty: what params_file says"),
    "engine": ("", "Engine; empty: what params_file says"),
    "calibration_file": ("", "Calibration of the robot's sensors; empty: what params_file says"),
    "output_profile": ("", "Layout of the labelled cloud; empty: what params_file says"),
    "bag": ("", "A bag to play; everything ends with it"),
    "rate": ("1.0", "How many times as fast as recorded the bag is played"),
    "rviz": ("false", "Whether to show the labelled points"),
    "fixed_frame": ("lidar", "Frame that RViz shows them in"),
    "use_sim_time": ("false", "Take the time from /clock"),
}


def nodes(context: LaunchContext) -> list:
    """What to start, by the arguments."""
    given = {name: context.launch_configurations[name] for name in ARGUMENTS}
    sim_time = {"use_sim_time": given["use_sim_time"].lower() == "true"}
    parameters = [given["params_file"] or str(resources.resource("config/segmentation_node.yaml")), sim_time]
    parameters += [
        {name: given[name]} for name in ("model", "engine", "calibration_file", "output_profile") if given[name]
    ]
    started = [
        Node(
            package=PACKAGE,
            executable="segmentation_node",
            name="segmentation_node",
            output="screen",
            parameters=parameters,
            remappings=[(name, given[name]) for name in ("points", "image", "camera_info")],
        )
    ]
    if given["bag"]:
        player = Node(
            package=PACKAGE,
            executable="bag_player",
            name="bag_player",
            output="screen",
            arguments=[given["bag"]],
            # The node subscribes once its model is loaded.
            parameters=[
                {"rate": float(given["rate"]), "wait_for_subscribers": 120.0, "wait_for_topics": given["points"]}
            ],
        )
        started += [
            player,
            RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[EmitEvent(event=Shutdown())])),
        ]
    if given["rviz"].lower() == "true":
        arguments = ["-d", str(resources.resource("config/segmentation.rviz")), "-f", given["fixed_frame"]]
        started.append(Node(package="rviz2", executable="rviz2", arguments=arguments, parameters=[sim_time]))
    return started


def generate_launch_description() -> LaunchDescription:
    """Arguments and nodes."""
    environment.prepare()  # inherited by every program started here: large clouds need it at their publisher
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=nodes)])
