"""scikit-learn's 1,797 handwritten digits: divided between the splits, enlarged and warped."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_digits

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

SPLITS = ("train", "val", "test")

_SPLIT_BOUNDS = {"train": (0.0, 0.7), "val": (0.7, 0.8), "test": (0.8, 1.0)}
_SPLIT_SHUFFLE_SEED = 20_230_517
_GLYPH_PIXELS = 8
_MARGIN = 1
_ZOOM = 8
_ENLARGED_SIDE = (_GLYPH_PIXELS + 2 * _MARGIN) * _ZOOM
_FRAGMENT_SIDE = 3 * _ZOOM
_INK_LEVELS = (6.0, 10.0)
"""Ink (0-16) at which a stroke starts to show and at which it is opaque."""

_MAX_ROTATION = 15.0
_MAX_SHEAR = 0.15
_ASPECT_JITTER = 0.12


@cache
def _digits() -> tuple[FloatArray, IntArray]:
    digits = load_digits()
    return digits.images.astype(np.float32), digits.target.astype(np.int64)


def glyph_labels(glyphs: IntArray) -> IntArray:
    """Return the digit, 0-9, that each glyph index shows."""
    return _digits()[1][glyphs]


@cache
def glyph_indices(split: str) -> IntArray:
    """Return the indices into scikit-learn's digits that belong to ``split``.

    Raises ValueError for a split that does not exist.
    """
    if split not in _SPLIT_BOUNDS:
        raise ValueError(f"The split is one of {', '.join(SPLITS)}, not {split!r}.")
    count = len(_digits()[1])
    order = np.random.default_rng(_SPLIT_SHUFFLE_SEED).permutation(count)
    low, high = (round(bound * count) for bound in _SPLIT_BOUNDS[split])
    return np.sort(order[low:high])


@cache
def _enlarged(glyph: int) -> Image.Image:
    """Return the glyph with a margin as a smooth picture of its ink, ``_ZOOM`` times larger."""
    padded = np.pad(_digits()[0][glyph], _MARGIN)
    ink = ndimage.zoom(padded, _ZOOM, order=3, mode="nearest", grid_mode=True)
    return Image.fromarray(ink.astype(np.float32))


def _random_warp(height: float, rng: np.random.Generator) -> FloatArray:
    """Return the 2x2 map from enlarged to scene pixels: scale, small rotation, shear, stretch."""
    angle = np.deg2rad(rng.uniform(-_MAX_ROTATION, _MAX_ROTATION))
    shear = rng.uniform(-_MAX_SHEAR, _MAX_SHEAR)
    stretch = np.exp(rng.uniform(-_ASPECT_JITTER, _ASPECT_JITTER))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scale = height / (_GLYPH_PIXELS * _ZOOM)
    return (scale * rotation @ np.array([[stretch, shear], [0.0, 1.0]])).astype(np.float32)


def _warped_opacity(source: Image.Image, warp: FloatArray) -> FloatArray:
    """Warp a picture of ink about its center; return its opacity 0-1, without empty borders."""
    half = np.abs(warp) @ np.array(source.size) / 2
    width, height = (int(np.ceil(2 * extent)) + 2 for extent in half)
    inverse = np.linalg.inv(warp)
    origin = np.array(source.size) / 2 - inverse @ np.array([width / 2, height / 2])
    ink = source.transform(
        (width, height),
        Image.Transform.AFFINE,
        (*inverse[0], origin[0], *inverse[1], origin[1]),
        resample=Image.Resampling.BILINEAR,
    )
    low, high = _INK_LEVELS
    return _trimmed(np.clip((np.asarray(ink, dtype=np.float32) - low) / (high - low), 0.0, 1.0))


def _trimmed(alpha: FloatArray) -> FloatArray:
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    if not len(rows):
        return alpha[:0, :0]
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def draw_glyph(glyph: int, height: float, rng: np.random.Generator) -> FloatArray:
    """Return the opacity ``[h, w]`` of a glyph about ``height`` pixels high, randomly warped."""
    return _warped_opacity(_enlarged(glyph), _random_warp(height, rng))


def draw_fragment(glyph: int, height: float, rng: np.random.Generator) -> FloatArray:
    """Return the opacity of a 3x3 piece of a glyph: it has strokes, but too few for a digit.

    ``height`` is the height of the whole glyph. The result is empty if the piece has no ink.
    """
    left, top = (int(edge) for edge in rng.integers(_ZOOM, _ENLARGED_SIDE - 4 * _ZOOM, 2))
    piece = _enlarged(glyph).crop((left, top, left + _FRAGMENT_SIDE, top + _FRAGMENT_SIDE))
    return _warped_opacity(piece, _random_warp(height, rng))
