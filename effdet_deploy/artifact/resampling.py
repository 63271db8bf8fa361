"""Scaling of pictures as in the training of a network: bilinear, like Pillow or like OpenCV."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import Interpolation

_WEIGHT_BITS = 11
"""The bits of the fixed-point numbers in which OpenCV keeps the weights of two neighbors."""


def axis_weights(source: int, target: int, interpolation: Interpolation) -> NDArray[np.float64]:
    """Return the weight of every source pixel in every target pixel: ``[target,source]``.

    Rows sum to 1. Both filters are a triangle around the middle of the new pixel. Pillow's triangle
    grows with the scale where the picture shrinks; OpenCV's always reaches the two nearest pixels
    only. A picture is scaled along one axis and then along the other.
    """
    scale = source / target
    reach = max(1.0, scale) if interpolation == "antialias" else 1.0
    middles = (np.arange(target) + 0.5) * scale
    away = np.abs(np.arange(source) + 0.5 - middles[:, None])
    weights = np.maximum(0.0, 1.0 - away / reach)
    normalized: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return normalized


def begins_with_rows(source: tuple[int, int], target: tuple[int, int]) -> bool:
    """Return whether Pillow scales the width first; the order matters, as Pillow rounds in between.

    Pillow 13 scales the height first where that is less work; older versions never do.

    Args:
        source: (height, width) of the picture.
        target: (height, width) of the result.
    """
    fewer_rows, fewer_columns = source[0] - target[0], source[1] - target[1]
    return not 0 < fewer_rows > 2 * fewer_columns


def resize_exactly(
    image: NDArray[np.uint8], height: int, width: int, interpolation: Interpolation
) -> NDArray[np.float64]:
    """Resize as :func:`resize` does, with weights in float64 instead of fixed point.

    Both functions round to whole levels, so their results can differ by one level where a value
    lies about halfway between two.
    """
    source, target = image.shape[:2], (height, width)
    order = (1, 0) if begins_with_rows(source, target) else (0, 1)
    levels = image.astype(np.float64)
    for axis in order:
        weights = axis_weights(source[axis], target[axis], interpolation)
        levels = np.moveaxis(np.tensordot(weights, levels, (1, axis)), 0, axis)
        if interpolation == "antialias" or axis == order[-1]:
            levels = np.floor(levels + 0.5)
    return levels


def resize(
    image: NDArray[np.uint8], height: int, width: int, interpolation: Interpolation
) -> NDArray[np.uint8]:
    """Scale ``image`` ``[h,w,channels]`` to ``[height,width,channels]``, every channel by itself.

    ``antialias`` is bit for bit Pillow's ``BILINEAR``. ``linear`` is within one level of OpenCV's
    ``INTER_LINEAR``, whose vector code rounds differently on some processors.
    """
    if interpolation == "linear":
        return _linear(image, height, width)
    # Pillow would weight the colors of RGBA by alpha.
    parts = [image] if image.shape[2] == 3 else list(np.moveaxis(image, 2, 0))
    scaled = [
        np.asarray(Image.fromarray(each).resize((width, height), Image.Resampling.BILINEAR))
        for each in parts
    ]
    return scaled[0] if image.shape[2] == 3 else np.stack(scaled, axis=2)


def _linear(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Scale as OpenCV does, in fixed point: along the rows, then along the columns."""
    left, right, *across = _neighbors(image.shape[1], width)
    upper, lower, *down = _neighbors(image.shape[0], height)
    first, second = (each[:, None] for each in across)
    total = np.zeros((height, width, image.shape[2]), np.int32)
    for rows, share in zip((upper, lower), down, strict=True):
        lines = image[rows]
        sums = np.take(lines, left, axis=1) * first + np.take(lines, right, axis=1) * second
        # The weights of both axes add 22 bits, which OpenCV drops in three steps: 4, 16 and 2.
        total += (share[:, None, None] * (sums >> 4)) >> 16
    scaled: NDArray[np.uint8] = np.minimum((total + 2) >> 2, 255).astype(np.uint8)
    return scaled


def _neighbors(source: int, target: int) -> tuple[NDArray[np.int32], ...]:
    """Return the two source pixels beside every new pixel, and their weights, as OpenCV does."""
    scale = 1.0 / (target / source)
    place = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(place)
    share = place - first
    outside = (first < 0) | (first >= source - 1)
    share[outside] = 0
    first = np.clip(first, 0, source - 1).astype(np.int32)
    whole = np.float32(1 << _WEIGHT_BITS)
    shares = (np.rint((1 - share) * whole), np.rint(share * whole))
    return first, np.minimum(first + 1, source - 1), *(each.astype(np.int32) for each in shares)
