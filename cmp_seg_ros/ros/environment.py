"""What the middleware must find in the environment before it starts."""

import os

from cmp_seg_ros import resources

PROFILES = "config/fastdds.xml"
VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
OLD_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"  # of Fast DDS 2.x; newer ones warn about it
OLD_DISTRIBUTIONS = ("humble", "iron", "jazzy")


def prepare() -> None:
    """Point Fast DDS to the profile for large messages, where the user gave none. Call before `rclpy.init`.

    With the middleware's defaults clouds of a megabyte get lost. Other middlewares ignore the variable.
    """
    if not (os.environ.get(VARIABLE) or os.environ.get(OLD_VARIABLE)):
        old = os.environ.get("ROS_DISTRO") in OLD_DISTRIBUTIONS
        os.environ[OLD_VARIABLE if old else VARIABLE] = str(resources.resource(PROFILES))
