"""For programs that import sensor_msgs_py where it is not installed."""

from cmp_seg_ros.ros.stand_ins.point_cloud2 import read_points

__all__ = ["read_points"]
