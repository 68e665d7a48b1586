"""Stands in for the compiled part of cv_bridge, where only its Python sources are on the path."""

import cv2

DEPTHS = {"8U": cv2.CV_8U, "8S": cv2.CV_8S, "16U": cv2.CV_16U, "16S": cv2.CV_16S, "32F": cv2.CV_32F, "64F": cv2.CV_64F}
TYPES = {f"{depth}C{n}": cv2.CV_MAKETYPE(number, n) for depth, number in DEPTHS.items() for n in (1, 2, 3, 4)}
TYPES |= {"rgb8": cv2.CV_8UC3, "bgr8": cv2.CV_8UC3, "rgba8": cv2.CV_8UC4, "bgra8": cv2.CV_8UC4}
TYPES |= {"mono8": cv2.CV_8UC1, "mono16": cv2.CV_16UC1, "bayer_rggb8": cv2.CV_8UC1, "yuv422": cv2.CV_8UC2}
PARTS = {cv2.CV_MAKETYPE(number, n): (number, n) for number in DEPTHS.values() for n in (1, 2, 3, 4)}
ORDERS = {"rgb8": "RGB", "bgr8": "BGR", "rgba8": "RGBA", "bgra8": "BGRA", "mono8": "GRAY", "mono16": "GRAY"}
OTHERS = {
    ("bayer_rggb8", "rgb8"): cv2.COLOR_BayerBG2RGB,
    ("bayer_rggb8", "bgr8"): cv2.COLOR_BayerBG2BGR,
    ("yuv422", "rgb8"): cv2.COLOR_YUV2RGB_UYVY,
}


def getCvType(encoding):
    if encoding not in TYPES:
        raise RuntimeError(f"Unrecognized image encoding [{encoding}]")
    return TYPES[encoding]


def CV_MAT_CNWrap(number):
    return PARTS[number][1]


def CV_MAT_DEPTHWrap(number):
    return PARTS[number][0]


def cvtColor2(image, encoding, desired):
    if encoding == desired:
        return image
    if (encoding, desired) in OTHERS:
        return cv2.cvtColor(image, OTHERS[encoding, desired])
    if encoding not in ORDERS or desired not in ORDERS:
        raise RuntimeError(f"[{encoding}] is not a color format. but [{desired}] is.")
    if image.dtype != "uint8" and desired != "mono16":
        image = cv2.convertScaleAbs(image, alpha=255 / 65535)
    source, target = ORDERS[encoding], ORDERS[desired]
    return image if source == target else cv2.cvtColor(image, getattr(cv2, f"COLOR_{source}2{target}"))
