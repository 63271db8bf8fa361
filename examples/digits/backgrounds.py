"""Textured backgrounds with clutter for the digit scenes; nothing here looks like a digit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

FloatArray = NDArray[np.float32]

_SHAPES_PER_SCENE = (2, 9)
_LINES_PER_SCENE = (0, 5)


def _blotches(size: int, cells: int, channels: int, rng: np.random.Generator) -> FloatArray:
    """Return noise ``[size, size, channels]``, about -1..1, in ``cells`` by ``cells`` blotches."""
    grid = rng.uniform(-1.0, 1.0, (channels, cells, cells)).astype(np.float32)
    planes = [
        Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC) for plane in grid
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def _stripes(size: int, rng: np.random.Generator) -> FloatArray:
    """Return a plane wave ``[size, size, 1]`` of random direction and period."""
    period = rng.uniform(6.0, 40.0)
    angle = rng.uniform(0.0, np.pi)
    along = np.arange(size, dtype=np.float32) * np.float32(2 * np.pi / period)
    phase = along[None, :] * np.float32(np.cos(angle)) + along[:, None] * np.float32(np.sin(angle))
    return np.sin(phase)[..., None]


def _color(base: FloatArray, spread: float, rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(value) for value in np.clip(base + rng.normal(0.0, spread, 3), 0, 255))


def _draw_clutter(picture: Image.Image, base: FloatArray, rng: np.random.Generator) -> None:
    """Draw filled polygons, discs and long thin lines."""
    draw = ImageDraw.Draw(picture)
    size = picture.width
    for _ in range(rng.integers(_SHAPES_PER_SCENE[0], _SHAPES_PER_SCENE[1] + 1)):
        center = rng.uniform(0, size, 2)
        radius = rng.uniform(6, size / 5)
        fill = _color(base, 35.0, rng)
        if rng.random() < 0.3:
            draw.ellipse([*(center - radius), *(center + radius)], fill=fill)
            continue
        corners = int(rng.integers(3, 6))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        outline = center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        draw.polygon([tuple(point) for point in outline], fill=fill)
    for _ in range(rng.integers(_LINES_PER_SCENE[0], _LINES_PER_SCENE[1] + 1)):
        ends = [float(value) for value in rng.uniform(0, size, 4)]
        draw.line(ends, fill=_color(base, 60.0, rng), width=int(rng.integers(1, 3)))


def textured_background(size: int, rng: np.random.Generator) -> FloatArray:
    """Return float32 ``[size, size, 3]`` in 0..255: blotches, stripes and meaningless shapes."""
    base = rng.uniform(30.0, 225.0, 3).astype(np.float32)
    canvas: FloatArray = base + _blotches(size, 3, 3, rng) * np.float32(rng.uniform(0.0, 35.0))
    picture = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    _draw_clutter(picture, base, rng)
    canvas = np.asarray(picture, dtype=np.float32)
    canvas = canvas + _blotches(size, int(rng.integers(12, 48)), 1, rng) * np.float32(
        rng.uniform(0.0, 18.0)
    )
    if rng.random() < 0.5:
        canvas += _stripes(size, rng) * np.float32(rng.uniform(2.0, 14.0))
    return canvas
