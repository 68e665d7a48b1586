"""sensor_msgs/CameraInfo to our camera models; nothing here imports ROS."""

from typing import Any

from pydantic import ValidationError

from cmp_seg_ros.errors import UserError, describe_invalid
from cmp_seg_ros.geometry.cameras import Camera

REMEDY = "calibrate the camera, or give its intrinsics in the calibration file"


def decode(msg: Any) -> Camera:
    """The camera that a CameraInfo describes: plumb_bob or equidistant, of rclpy, ROS 1 or ROS 2 bags.

    Raises:
        UserError: K is zero (the driver has no calibration), the distortion model is another one, or it makes no sense.
    """
    k = [float(v) for v in (msg.k if hasattr(msg, "k") else msg.K)]
    d = [float(v) for v in (msg.d if hasattr(msg, "d") else msg.D)]
    model = str(msg.distortion_model)
    if not any(k):
        raise UserError(f"the camera info is not calibrated (K is zero); {REMEDY}")
    if not any(d):
        d = []
    if model in ("plumb_bob", "") and len(d) in (0, 4, 5):
        kind = "pinhole"
    elif model in ("equidistant", "fisheye") and len(d) in (0, 4):
        kind = "equidistant"
    elif model == "rational_polynomial" and not any(d[5:]):  # of the rational model only the polynomial is used
        kind, d = "pinhole", d[:5]
    else:
        raise UserError(
            f"distortion model '{model}' of the camera info, with {len(d)} coefficients, is not known here "
            f"(plumb_bob with 4 or 5 is, and equidistant with 4); {REMEDY}"
        )
    intrinsics = (k[0], k[4], k[2], k[5])
    try:
        return Camera.model_validate(
            {"model": kind, "intrinsics": intrinsics, "distortion": d, "width": msg.width, "height": msg.height}
        )
    except ValidationError as error:
        raise UserError(f"the camera info makes no sense ({describe_invalid(error)}); {REMEDY}") from error
