"""The native resize gives Pillow's bytes, for every shape, pixel format and stride."""

from __future__ import annotations

import ctypes
import hashlib
import re

import numpy as np
import pytest
from PIL import Image

from effdet_deploy.artifact.resampling import resize as scaled_in_python
from tests.native.building import NATIVE

SHAPES = 300
"""How many shapes are tried: enough for both orders of the axes, one-pixel sides and large scales.

With the marker ``native`` 2,000 shapes are tried."""


@pytest.fixture(scope="module")
def resize(testing_library, binding):
    library = ctypes.CDLL(str(testing_library))

    def run(picture, width, height, pixels="rgb", antialias=True):
        target = np.empty((height, width, 3), np.uint8)
        image = binding.view(picture, pixels)
        address = target.ctypes.data_as(ctypes.c_void_p)
        library.effdet_testing_resize(ctypes.byref(image), width, height, int(antialias), address)
        return target

    return run


def noise(random, height, width, *channels):
    return random.integers(0, 256, (height, width, *channels), dtype=np.uint8)


def by_pillow(picture, width, height):
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))


def compare(resize, seed, count):
    random = np.random.default_rng(seed)
    for _ in range(count):
        height, width, new_height, new_width = np.exp(random.uniform(0, 6.2, 4)).astype(int)
        picture = noise(random, height, width, 3)
        found = resize(picture, int(new_width), int(new_height))
        expected = by_pillow(picture, new_width, new_height)
        assert np.array_equal(found, expected), (height, width, new_height, new_width)


def test_noise_of_many_shapes_is_scaled_as_pillow_does(resize):
    compare(resize, 0, SHAPES)


@pytest.mark.native
def test_noise_of_two_thousand_shapes_is_scaled_as_pillow_does(resize):
    compare(resize, 1, 2000)


@pytest.mark.parametrize("change", range(-3, 4))
def test_the_order_of_the_axes_is_pillows_just_before_and_after_it_changes(resize, change):
    # Pillow scales rows first if h - H <= 2 (w - W); the levels show which order was taken.
    random = np.random.default_rng(change + 3)
    picture = noise(random, 100 + change, 60, 3)
    assert np.array_equal(resize(picture, 40, 60), by_pillow(picture, 40, 60))


@pytest.mark.parametrize("value", [0, 255])
def test_flat_pictures_stay_flat(resize, value):
    picture = np.full((77, 131, 3), value, np.uint8)
    assert (resize(picture, 50, 23) == value).all()


SWAPS = {"rgb": [0, 1, 2], "bgr": [2, 1, 0], "rgbx": [0, 1, 2, 3], "bgrx": [2, 1, 0, 3]}


@pytest.mark.parametrize("pixels", SWAPS)
@pytest.mark.parametrize("stride", ["tight", "wide", "upside down"])
def test_formats_and_strides_show_the_same_picture(resize, pixels, stride):
    random = np.random.default_rng(5)
    whole = noise(random, 45, 200, len(SWAPS[pixels]))
    picture = {"tight": whole, "wide": whole[:, 3:90], "upside down": whole[::-1, 3:90]}[stride]
    plain = np.ascontiguousarray(picture[..., SWAPS[pixels][:3]])
    assert np.array_equal(resize(picture, 31, 29, pixels), by_pillow(plain, 31, 29))


def test_a_gray_level_goes_into_every_channel(resize):
    picture = noise(np.random.default_rng(6), 45, 67)
    expected = by_pillow(np.repeat(picture[..., None], 3, axis=2), 31, 29)
    assert np.array_equal(resize(picture, 31, 29, "gray"), expected)


@pytest.mark.parametrize(("pixels", "order"), [("rgba", [0, 1, 2, 3]), ("bgra", [2, 1, 0, 3])])
def test_every_level_over_every_alpha_is_blended_over_white_as_pillow_does(resize, pixels, order):
    level, alpha = np.meshgrid(np.arange(256), np.arange(256))
    picture = np.stack([level, 255 - level, level // 2, alpha], axis=-1).astype(np.uint8)
    white = Image.new("RGBA", (256, 256), (255, 255, 255, 255))
    expected = np.asarray(Image.alpha_composite(white, Image.fromarray(picture)).convert("RGB"))
    given = np.ascontiguousarray(picture[..., order])
    assert np.array_equal(resize(given, 256, 256, pixels), expected)


def test_linear_is_within_one_level_of_opencv(resize):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is the other side of this comparison")
    random = np.random.default_rng(7)
    for _ in range(100):
        height, width, new_height, new_width = np.exp(random.uniform(0.7, 6, 4)).astype(int)
        picture = noise(random, height, width, 3)
        size = int(new_width), int(new_height)
        expected = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
        difference = resize(picture, *size, antialias=False).astype(int) - expected
        assert abs(difference).max() <= 1


def test_linear_gives_the_bytes_of_the_python_package(resize):
    random = np.random.default_rng(8)
    for _ in range(60):
        height, width, *size = np.exp(random.uniform(0, 6, 4)).astype(int).tolist()
        picture = noise(random, height, width, 3)
        found = resize(picture, *size, antialias=False)
        assert np.array_equal(found, scaled_in_python(picture, *size[::-1], "linear"))


def test_the_hash_in_the_native_test_is_that_of_pillows_bytes():
    source = (NATIVE / "tests" / "test_resize.cpp").read_text(encoding="utf-8")
    digest = hashlib.sha256()
    for shape in re.findall(r"\{(\d+), (\d+), (\d+), (\d+)\}", source):
        width, height, new_width, new_height = map(int, shape)
        mixed = np.arange(1, width * height * 3 + 1, dtype=np.uint32) * np.uint32(2654435761)
        pixels = ((mixed ^ (mixed >> 15)) >> 11).astype(np.uint8).reshape(height, width, 3)
        digest.update(by_pillow(pixels, new_width, new_height).tobytes())
    assert digest.hexdigest() in source
