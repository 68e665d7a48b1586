"""Stands in for sensor_msgs_py.point_cloud2 where that is not installed: reads the points of a cloud."""

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.messages.point_cloud2 import TYPES


def read_points(cloud: Any, field_names: Iterable[str] | None = None, skip_nans: bool = False) -> npt.NDArray[Any]:
    """(N,) structured array of the points of a sensor_msgs/PointCloud2 without padding behind its rows.

    Args:
        field_names: those wanted; all by default.
        skip_nans: whether to leave out points with NaN in one of them, where the cloud is not dense.
    """
    layout = {
        "names": [field.name for field in cloud.fields],
        "formats": [TYPES[field.datatype] for field in cloud.fields],
        "offsets": [field.offset for field in cloud.fields],
        "itemsize": cloud.point_step,
    }
    points = np.ndarray(cloud.width * cloud.height, np.dtype(layout), cloud.data)  # type: ignore[call-overload]
    if field_names is not None:
        points = points[list(field_names)]
    if cloud.is_bigendian != (sys.byteorder == "big"):
        points = points.byteswap()
    if skip_nans and not cloud.is_dense:
        points = points[~np.any([np.isnan(points[name]) for name in points.dtype.names or ()], axis=0)]
    return points
