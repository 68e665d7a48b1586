"""Extrinsics from TF, where tf2_ros is installed."""

from typing import Any

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import Transform
from cmp_seg_ros.messages.transforms import matrix


class TfExtrinsics:
    """Transforms between sensors, as TF has them at present. Raises UserError where tf2_ros is not installed."""

    def __init__(self, node: Any) -> None:
        try:
            import tf2_ros
        except ImportError:
            raise UserError(
                "extrinsics 'tf' needs tf2_ros, which is not installed; install it, or give a calibration_file and "
                "set extrinsics to file"
            ) from None
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        self._error: type[Exception] = tf2_ros.TransformException

    def lookup(self, target: str, source: str, stamp: int = 0) -> Transform | None:
        """T_target_source at a stamp in nanoseconds, the latest for 0; None while it is not known."""
        import rclpy.time

        try:
            time = rclpy.time.Time(nanoseconds=stamp)
            return matrix(self._buffer.lookup_transform(target, source, time).transform)
        except self._error:
            return None
