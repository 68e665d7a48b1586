"""Options that several commands share."""

from enum import Enum


class OdometrySource(str, Enum):
    """Where poses come from; auto: recorded where there are some. The same as `mapping.odometry.SOURCES`."""

    auto = "auto"
    recorded = "recorded"
    kiss_icp = "kiss-icp"
