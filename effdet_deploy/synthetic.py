"""Seeded pictures with structure, to adjust random weights with and to compare networks on.

Noise hardly excites a detector, and photographs have owners. These pictures have what photographs
have: slow gradients, objects of all sizes with edges, textures, and small marks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Canvas = NDArray[np.float32]
    Grid = NDArray[np.float32]

_OBJECTS = (6, 15)
"""The range of the number of objects in a picture; the end of the range is left out."""
_MARK_ROWS = (1, 4)
"""The range of the number of rows of marks in a picture; the end of the range is left out."""
_GRAIN = 3.0
"""Standard deviation of the sensor noise, in gray levels."""


def structured_pictures(
    count: int, height: int, width: int, seed: int, channels: int = 3
) -> NDArray[np.uint8]:
    """Make ``count`` pictures, uint8 ``[count,height,width,channels]``: RGB, gray (1) or RGBA (4).

    Picture ``i`` depends only on ``seed``, ``i`` and the size, not on ``count``.
    """
    pictures = np.empty((count, height, width, 3), np.uint8)
    for index in range(count):
        random = np.random.default_rng([seed, index])
        canvas = _background(height, width, random)
        for _ in range(random.integers(*_OBJECTS)):
            _draw_object(canvas, random)
        for _ in range(random.integers(*_MARK_ROWS)):
            _draw_marks(canvas, random)
        canvas += random.normal(0, _GRAIN, canvas.shape).astype(np.float32)
        pictures[index] = np.clip(canvas, 0, 255).round()
    if channels == 1:
        gray: NDArray[np.uint8] = pictures.mean(axis=3, keepdims=True).round().astype(np.uint8)
        return gray
    # The alpha channel is a turned copy of red: a constant one would hide mistakes in its handling.
    turned = pictures[:, ::-1, ::-1, :1]
    return np.concatenate([pictures, turned], axis=3) if channels == 4 else pictures


def _background(height: int, width: int, random: np.random.Generator) -> Canvas:
    """Paint a gradient between two colors, bent by a slow wave."""
    y, x = _unit_grid(height, width)
    angle, phase = random.uniform(0, 2 * np.pi, 2)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    blend = 0.5 + 0.4 * along + 0.15 * np.sin(random.uniform(2, 9) * across + phase)
    low, high = _color(random), _color(random)
    canvas: Canvas = (low + (high - low) * blend[..., None]).astype(np.float32)
    return canvas


def _unit_grid(height: int, width: int) -> tuple[Grid, Grid]:
    """Return y ``[h,1]`` and x ``[1,w]``, both from -1 to 1."""
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    return y, x


def _color(random: np.random.Generator) -> NDArray[np.float32]:
    return random.uniform(0, 255, 3).astype(np.float32)


def _draw_object(canvas: Canvas, random: np.random.Generator) -> None:
    """Paint one textured shape, from a thirtieth to half of the picture in size."""
    height, width = canvas.shape[:2]
    extent = float(np.exp(random.uniform(np.log(1 / 30), np.log(1 / 2)))) * min(height, width)
    aspect = float(np.exp(random.uniform(-0.7, 0.7)))
    h = int(np.clip(extent / aspect, 3, height))
    w = int(np.clip(extent * aspect, 3, width))
    top = int(random.integers(0, height - h + 1))
    left = int(random.integers(0, width - w + 1))
    y, x = _unit_grid(h, w)
    inside = _shape(y, x, random)
    blend = _texture(y, x, random)[..., None]
    low, high = _color(random), _color(random)
    patch = canvas[top : top + h, left : left + w]
    np.copyto(patch, low + (high - low) * blend, where=inside[..., None])


def _draw_marks(canvas: Canvas, random: np.random.Generator) -> None:
    """Paint a row of strokes that resembles a line of writing."""
    height, width = canvas.shape[:2]
    size = max(3, int(random.uniform(0.02, 0.07) * min(height, width)))
    top = int(random.integers(0, max(1, height - size)))
    left = int(random.integers(0, max(1, width // 2)))
    color = _color(random)
    stroke = max(1, size // 5)
    for _ in range(random.integers(4, 16)):
        cell = canvas[top : top + size, left : left + size]
        bars = random.random(4) < 0.5
        for place, drawn in zip((0, size // 2, size - stroke), bars[:3], strict=True):
            if drawn:
                cell[place : place + stroke] = color
        cell[:, :stroke] = color
        if bars[3]:
            cell[:, size - stroke :] = color
        left += size + stroke


def _shape(y: Grid, x: Grid, random: np.random.Generator) -> NDArray[np.bool_]:
    """Return where an ellipse, a rectangle, a triangle or a ring is."""
    distance = x**2 + y**2
    inside = (
        distance <= 1,
        np.ones(distance.shape, np.bool_),
        np.abs(x) <= (y + 1) / 2,
        (distance <= 1) & (distance >= 0.3),
    )
    return inside[random.integers(len(inside))]


def _texture(y: Grid, x: Grid, random: np.random.Generator) -> Grid:
    """Return a blend of two colors that is shaded, striped, checked or speckled."""
    blend: Grid
    match random.integers(4):
        case 0:
            blend = 0.5 + random.uniform(0.1, 0.3) * x + random.uniform(0.1, 0.2) * y
        case 1:
            angle = random.uniform(0, np.pi)
            wave = np.sin(random.uniform(8, 30) * (x * np.cos(angle) + y * np.sin(angle)))
            blend = 0.5 + 0.5 * wave
        case 2:
            cells = random.integers(2, 7)
            blend = ((np.floor(y * cells) + np.floor(x * cells)) % 2).astype(np.float32)
        case _:
            blend = random.random((len(y), x.shape[1]), np.float32)
    return blend
