"""The graph's input: the picture letterboxed, centered or stretched, and the padding color."""

from __future__ import annotations

import ctypes
import json

import numpy as np
import pytest
from PIL import Image

from tests.native.models import make_spec


@pytest.fixture(scope="module")
def fill(testing_library, binding):
    library = ctypes.CDLL(str(testing_library))

    def run(spec, picture):
        target = np.zeros((spec["input"]["height"], spec["input"]["width"], 3), np.uint8)
        image = binding.view(picture)
        text = json.dumps(spec).encode()
        assert not library.effdet_testing_input(
            text, ctypes.byref(image), target.ctypes.data_as(ctypes.c_void_p)
        )
        return target

    return run


def scaled(picture, width, height):
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))


PICTURE = np.random.default_rng(1).integers(0, 256, (200, 100, 3), dtype=np.uint8)


def test_a_letterbox_fills_the_rest_of_the_input(fill):
    found = fill(make_spec(128, 160, fill=[1, 2, 3]), PICTURE)
    assert np.array_equal(found[:, :64], scaled(PICTURE, 64, 128))
    assert (found[:, 64:] == [1, 2, 3]).all()


def test_a_centered_picture_has_padding_on_both_sides(fill):
    found = fill(make_spec(128, 160, fill=[1, 2, 3], resize="center"), PICTURE)
    assert np.array_equal(found[:, 48:112], scaled(PICTURE, 64, 128))
    assert (found[:, :48] == [1, 2, 3]).all()
    assert (found[:, 112:] == [1, 2, 3]).all()


def test_a_stretched_picture_fills_the_input(fill):
    found = fill(make_spec(128, 160, resize="stretch"), PICTURE)
    assert np.array_equal(found, scaled(PICTURE, 160, 128))


def test_bgr_swaps_the_picture_and_its_padding(fill):
    spec = make_spec(128, 160, fill=[1, 2, 3])
    swapped = make_spec(128, 160, fill=[1, 2, 3], channel_order="bgr")
    assert np.array_equal(fill(swapped, PICTURE), fill(spec, PICTURE)[..., ::-1])


def test_a_side_that_would_vanish_keeps_one_pixel(fill):
    thin = np.full((2000, 2, 3), 77, np.uint8)
    found = fill(make_spec(128, 160), thin)
    assert (found[:, 0] == 77).all()
    assert (found[:, 1] != 77).any()


@pytest.mark.parametrize("channels", [1, 4])
def test_networks_of_gray_and_rgba_pictures_are_refused(testing_library, binding, channels):
    library = ctypes.CDLL(str(testing_library))
    values = {"mean": [0.5] * channels, "std": [0.5] * channels, "fill": [0] * channels}
    text = json.dumps(make_spec(128, 160, **values)).encode()
    target = np.zeros((128, 160, 4), np.uint8)
    image = binding.view(PICTURE)
    address = target.ctypes.data_as(ctypes.c_void_p)
    assert library.effdet_testing_input(text, ctypes.byref(image), address)
    assert not target.any()
