"""Images in every encoding we know, with padded rows and either byte order; cv_bridge knows more."""

import importlib
import importlib.util
import io
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.messages import images

RGB = np.array([[[255, 0, 0], [0, 255, 0], [10, 20, 30]], [[0, 0, 255], [9, 9, 9], [200, 100, 50]]], np.uint8)


def message(pixels: np.ndarray, encoding: str, padding: int = 0, big: bool = False):
    """An Image with `padding` bytes of garbage behind each row."""
    if big:
        pixels = pixels.astype(pixels.dtype.newbyteorder(">"))
    height, width = pixels.shape[:2]
    rows = np.frombuffer(pixels.tobytes(), np.uint8).reshape(height, -1)
    padded = np.hstack([rows, np.full((height, padding), 77, np.uint8)])
    return SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        step=padded.shape[1],
        is_bigendian=int(big),
        data=padded.tobytes(),
        header=None,
    )


@settings(max_examples=60)
@given(st.sampled_from(list(images.LAYOUTS)), st.integers(1, 5), st.integers(1, 6), st.integers(0, 9), st.booleans())
def test_any_encoding_decodes(encoding, height, width, padding, big):
    kind, channels = images.LAYOUTS[encoding]
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, channels)).astype(kind)
    same = images.pixels_of(message(pixels, encoding, padding, big))
    np.testing.assert_array_equal(same, pixels)
    rgb = images.to_rgb(message(pixels, encoding, padding, big))
    assert rgb.shape == (height, width, 3) and rgb.dtype == np.uint8
    if kind == "u1":
        np.testing.assert_array_equal(rgb, pixels[:, :, images.RGB.get(encoding, (0, 0, 0))])


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_colours_go_out_and_in(encoding):
    pixels = np.full((2, 3, images.LAYOUTS[encoding][1]), 255, np.uint8)
    pixels[:, :, images.RGB[encoding]] = RGB
    msg = images.encode(pixels, encoding, Header(), Image)
    assert (msg.height, msg.width, msg.encoding, msg.step) == (2, 3, encoding, 3 * pixels.shape[2])
    np.testing.assert_array_equal(images.pixels_of(msg), pixels)
    np.testing.assert_array_equal(images.to_rgb(msg), RGB)


@pytest.mark.parametrize("encoding", ["mono8", "mono16"])
def test_grey_values_go_out_and_in(encoding):
    grey = np.arange(6, dtype=images.LAYOUTS[encoding][0]).reshape(2, 3) * 40
    np.testing.assert_array_equal(images.pixels_of(images.encode(grey, encoding, Header(), Image))[:, :, 0], grey)


@pytest.mark.parametrize("pixels", [RGB, RGB[:, :, 0]])
def test_compressed_images_become_colours(pixels):
    file = io.BytesIO()
    Picture.fromarray(pixels).save(file, "PNG")
    expected = pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(images.to_rgb(SimpleNamespace(format="png", data=file.getvalue())), expected)


def test_grey_images_become_grey_colours():
    deep = np.array([[0, 0x1234, 0xFFFF]], np.uint16)
    np.testing.assert_array_equal(images.to_rgb(message(deep, "mono16", big=True))[0], [[0] * 3, [0x12] * 3, [255] * 3])


@pytest.mark.skipif(importlib.util.find_spec("cv_bridge") is None, reason="cv_bridge is not installed")
def test_cv_bridge_reads_encodings_that_we_do_not_know():
    if importlib.util.find_spec("cv_bridge.boost") is None:  # only its Python sources are there
        sys.path.append(str(Path(__file__).parent / "stand_ins"))
        sys.modules["cv_bridge.boost"] = ModuleType("cv_bridge.boost")
        sys.modules["cv_bridge.boost.cv_bridge_boost"] = importlib.import_module("cv_bridge_boost")
    mosaic = np.zeros((8, 8, 1), np.uint8)
    mosaic[::2, ::2] = 255  # red only
    rgb = images.to_rgb(message(mosaic, "bayer_rggb8"))
    assert (rgb[2:6, 2:6] == (255, 0, 0)).all()


def test_a_cv_bridge_that_fails_is_named(monkeypatch):
    def fail(_self, _msg, _encoding):
        raise AttributeError("`newbyteorder` was removed from the ndarray class in NumPy 2.0")

    bridge = type("CvBridge", (), {"imgmsg_to_cv2": fail})
    monkeypatch.setitem(sys.modules, "cv_bridge", SimpleNamespace(CvBridge=bridge))
    with pytest.raises(UserError, match=r"encoding 'bayer_rggb8'.*newbyteorder"):
        images.to_rgb(message(RGB[:, :, :1], "bayer_rggb8"))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"encoding": "bayer_rggb8"}, r"bayer_rggb8.*rgb8, bgr8"),
        ({"step": 3}, r"3 x 2 pixels of rgb8 and 3 bytes a row"),
        ({"data": b"\0" * 17}, r"has 17 bytes"),
        ({"height": 0}, r"3 x 0 pixels"),
    ],
)
def test_malformed_images_are_named(changes, error):
    msg = message(RGB, "rgb8")
    vars(msg).update(changes)
    with pytest.raises(UserError, match=error):
        images.to_rgb(msg)


def test_broken_jpeg_is_named():
    with pytest.raises(UserError, match=r"compressed image \('jpeg'\) cannot be read"):
        images.to_rgb(SimpleNamespace(format="jpeg", data=b"\xff\xd8\xff\xe0 no more"))
    file = io.BytesIO()
    Picture.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)).save(file, "PNG")
    before, _, after = file.getvalue().rpartition(b"IDAT")
    damaged = before + bytes(4) + after
    with pytest.raises(UserError, match=r"compressed image \('png'\) cannot be read"):
        images.to_rgb(SimpleNamespace(format="png", data=damaged))
    with pytest.raises(UserError, match="is no image of encoding 'rgb8'"):
        images.encode(np.zeros((2, 2), np.uint8), "rgb8", Header(), Image)
