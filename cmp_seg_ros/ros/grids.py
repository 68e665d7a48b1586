"""Occupancy grids as messages."""

import numpy as np
import numpy.typing as npt
from nav_msgs.msg import OccupancyGrid


def encode(
    occupancy: npt.NDArray[np.int8], origin: tuple[float, float], resolution: float, frame: str, stamp: int
) -> OccupancyGrid:
    """A nav_msgs/OccupancyGrid.

    Args:
        occupancy: (height, width): 0 free, 100 occupied, -1 unknown; row 0 at the lowest y.
        origin: x and y of the corner of the first cell, metres.
        resolution: metres per cell.
        stamp: nanoseconds.
    """
    message = OccupancyGrid()
    message.header.frame_id = frame
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
    message.info.map_load_time = message.header.stamp
    message.info.resolution = float(resolution)
    message.info.height, message.info.width = occupancy.shape
    message.info.origin.position.x, message.info.origin.position.y = origin
    message.info.origin.orientation.w = 1.0
    message.data.frombytes(np.ascontiguousarray(occupancy).tobytes())
    return message
