"""What a user may set; config/segmentation_node.yaml holds the same defaults."""

from cmp_seg_ros.bundle import DEFAULT_BUNDLE
from cmp_seg_ros.messages.point_cloud2 import PROFILES
from cmp_seg_ros.ros.parameters import Parameter

PARAMETERS = [
    Parameter("model", DEFAULT_BUNDLE, "Model bundle: a folder, or a name in models/"),
    Parameter("engine", "auto", "What runs the network; auto takes the fastest that is right on this machine"),
    Parameter(
        "target_rate_hz",
        15.0,
        "Scans a second that shall be labelled: where the machine is too slow voxels become coarser, up to 0.2 m; "
        "0: always the bundle's voxels",
        (0.0, 1000.0),
        read_only=False,
    ),
    Parameter("label_space", "", "Label space to answer in, by name or file; empty: that of the bundle"),
    Parameter(
        "output_profile",
        "default",
        "Layout of the labelled cloud: default keeps all fields of the input; the others suit other readers",
        PROFILES,
    ),
    Parameter(
        "min_confidence",
        0.0,
        "Points whose label is less probable become unlabelled (255)",
        (0.0, 1.0),
        read_only=False,
    ),
    Parameter("calibration_file", "", "Calibration of the robot's sensors; empty: the lidar is taken as upright"),
    Parameter("lidar_name", "", "The lidar's name in the calibration file; may be empty if it has only one"),
    Parameter("camera_name", "", "The camera's name in the calibration file; may be empty if it has only one"),
    Parameter(
        "extrinsics",
        "file",
        "Where the sensors' poses come from; none: the lidar is taken as upright, no overlay",
        ("file", "tf", "none"),
    ),
    Parameter("base_frame", "base_link", "Frame with z up, for extrinsics from tf"),
    Parameter(
        "sync_deadline",
        0.1,
        "Seconds: the most that an image may be apart from a scan, and the longest that an overlay waits for it",
        (0.0, 5.0),
        read_only=False,
    ),
    Parameter(
        "input_reliability",
        "auto",
        "Quality of service of the inputs; auto is reliable until a publisher offers only best effort",
        ("auto", "reliable", "best_effort"),
    ),
    Parameter("image_transport", "raw", "compressed subscribes to image/compressed", ("raw", "compressed")),
    Parameter(
        "only_when_subscribed", False, "Label only while somebody subscribes to an output; other scans are dropped"
    ),
    Parameter("overlay_point_size", 4, "Side in pixels of a point in ~/overlay", (1, 50), read_only=False),
    Parameter("overlay_opacity", 0.8, "Opacity of the points in ~/overlay", (0.0, 1.0), read_only=False),
    Parameter("threads", 0, "Threads of the engine; 0: as many as it sees fit", (0, 256)),
]
