"""The names of the sources of odometry, for commands to list without loading `odometry`."""

from enum import Enum


class OdometrySource(str, Enum):
    """Where poses come from; auto: recorded where there are some."""

    auto = "auto"
    recorded = "recorded"
    kiss_icp = "kiss-icp"
