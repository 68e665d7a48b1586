"""sensor_msgs/CameraInfo to our camera models; nothing here imports ROS."""

from typing import Any

from pydantic import ValidationError

from cmp_seg_ros.errors import UserError, describe_invalid
from cmp_seg_ros.geometry.cameras import Camera

REMEDY = "calibrate the camera, or give its intrinsics in the calibration file"


def decode(msg: Any) -> Camera:
    """The camera of a CameraInfo of rclpy, ROS 1 or ROS 2 bags: plumb_bob or equidistant, cropped and binned.

    Raises:
        UserError: K is zero (the driver has no calibration), the distortion model is another one, or it is not valid.
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
    (left, top, width, height), (across, down) = _crop(msg)
    intrinsics = (
        k[0] / across,
        k[4] / down,
        (k[2] - left + 0.5) / across - 0.5,
        (k[5] - top + 0.5) / down - 0.5,
    )
    size = {"width": width // across, "height": height // down}
    try:
        return Camera.model_validate({"model": kind, "intrinsics": intrinsics, "distortion": d, **size})
    except ValidationError as error:
        raise UserError(f"the camera info is not valid ({describe_invalid(error)}); {REMEDY}") from error


def _crop(msg: Any) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """Left, top, width and height of the part of the sensor that images show, and pixels of it per pixel of them."""
    roi = getattr(msg, "roi", None)
    box = (0, 0, int(msg.width), int(msg.height))
    if roi is not None and roi.width and roi.height:
        box = (int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height))
    return box, (max(1, int(getattr(msg, "binning_x", 0))), max(1, int(getattr(msg, "binning_y", 0))))
