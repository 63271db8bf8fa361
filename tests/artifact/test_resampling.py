"""Pictures are resized as in training: by OpenCV's linear filter, or Pillow's antialiased one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effdet_deploy.artifact.resampling import axis_weights, resize

RECORDED = Path(__file__).with_name("opencv_linear.npz")
"""What ``cv2.resize(noise(...), (width, height), interpolation=cv2.INTER_LINEAR)`` of OpenCV 5.0
gave, under the key "height width new_height new_width"."""
ROUNDINGS = 1.01
"""How many gray levels rounding may cost: both filters round after each of the two axes."""


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng([seed, height, width])
    return random.integers(0, 256, (height, width, channels), dtype=np.uint8)


def levels_apart(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def test_linear_is_within_a_level_of_what_opencv_gave():
    with np.load(RECORDED) as recorded:
        assert len(recorded) >= 6
        for key, expected in recorded.items():
            height, width, *size = map(int, key.split())
            found = resize(noise(height, width), *size, "linear")
            assert levels_apart(found, expected) <= 1, key


def test_linear_is_within_a_level_of_opencv_on_many_shapes():
    cv2 = pytest.importorskip("cv2", reason="OpenCV is the other side of this comparison")
    random = np.random.default_rng(7)
    for _ in range(100):
        height, width, *size = np.exp(random.uniform(0, 6, 4)).astype(int).tolist()
        picture = noise(height, width)
        expected = cv2.resize(picture, tuple(size[::-1]), interpolation=cv2.INTER_LINEAR)
        assert levels_apart(resize(picture, *size, "linear"), expected) <= 1


def test_linear_skips_the_pixels_between_its_samples_and_antialias_uses_them():
    lines = np.zeros((64, 64, 3), np.uint8)
    lines[::8] = 255
    assert set(np.unique(resize(lines, 8, 8, "linear"))) == {0}
    assert resize(lines, 8, 8, "antialias").min() > 0


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_channel_is_scaled_by_itself_as_pillow_scales_gray(channels):
    picture = noise(50, 31, channels)
    found = resize(picture, 20, 40, "antialias")
    for channel in range(channels):
        plane = Image.fromarray(picture[..., channel]).resize((40, 20), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(found[..., channel], np.asarray(plane))


@pytest.mark.parametrize("interpolation", ["antialias", "linear"])
@pytest.mark.parametrize("channels", [1, 4])
def test_channels_do_not_mix(channels, interpolation):
    picture = noise(50, 31, channels)
    together = resize(picture, 20, 40, interpolation)
    alone = [resize(picture[..., [each]], 20, 40, interpolation) for each in range(channels)]
    np.testing.assert_array_equal(together, np.concatenate(alone, axis=2))


@pytest.mark.parametrize("interpolation", ["antialias", "linear"])
@pytest.mark.parametrize("size", [(48, 64, 30, 64), (20, 33, 57, 20), (1, 9, 4, 3), (64, 64, 9, 9)])
def test_the_weights_of_an_axis_are_those_of_the_filter(size, interpolation):
    """A picture multiplied with the weights of both axes is the picture that resizing gives."""
    height, width, *target = size
    picture = noise(height, width)
    down = axis_weights(height, target[0], interpolation)
    across = axis_weights(width, target[1], interpolation)
    np.testing.assert_allclose(down.sum(axis=1), 1)
    expected = np.einsum("yh,hwc,xw->yxc", down, picture.astype(float), across)
    found = resize(picture, *target, interpolation)
    assert np.abs(found - expected).max() <= ROUNDINGS


@pytest.mark.parametrize("interpolation", ["antialias", "linear"])
def test_a_picture_of_the_right_size_stays_as_it_is(interpolation):
    picture = noise(37, 21)
    np.testing.assert_array_equal(resize(picture, 37, 21, interpolation), picture)
