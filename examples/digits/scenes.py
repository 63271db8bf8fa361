"""Compose detection scenes from scikit-learn's handwritten digits.

    python examples/digits/scenes.py --split test --seed 0 --count 1000 OUT

writes ``OUT/images/*.png`` and ``OUT/annotations.json`` in COCO form. A scene depends only on
split, seed and index, so a set can be made again, extended, or made in parallel. No glyph is in two
splits, so the handwriting of the test scenes is never seen in training.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from backgrounds import textured_background
from glyphs import (
    SPLITS,
    FloatArray,
    IntArray,
    draw_fragment,
    draw_glyph,
    glyph_indices,
    glyph_labels,
)
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCENE_SIZE = 256
CLASS_NAMES = tuple("0123456789")
CATEGORY_IDS = tuple(range(1, 11))

_DIGITS_PER_SCENE = (3, 10)
_GLYPH_HEIGHT = (32.0, 112.0)
_FRAGMENTS_PER_SCENE = (0, 5)
_FRAGMENT_GLYPH_HEIGHT = (32.0, 72.0)
_PLACEMENT_TRIES = 8
_MIN_VISIBLE = 0.8
_MAX_BOX_IOU = 0.2
_SHOWS = 0.5
"""Opacity from which a pixel counts as part of a digit."""

_MIN_CONTRAST = 70.0
_SHADE = 30.0
_PIXEL_NOISE = 8.0


@dataclass(frozen=True)
class Scene:
    """One composed picture and the digits in it.

    ``image`` is uint8 ``[size, size, 3]`` RGB. ``boxes`` float32 ``[N, 4]`` are x1, y1, x2, y2 in
    pixels (x2 and y2 exclusive), tight around the visible part of each digit. ``labels`` int64
    ``[N]`` are the digits, and ``glyphs`` int64 ``[N]`` their indices in scikit-learn's data set.
    ``owners`` int16 ``[size, size]`` holds for each pixel the row of the digit seen there, or -1.
    """

    image: NDArray[np.uint8]
    boxes: FloatArray
    labels: IntArray
    glyphs: IntArray
    owners: NDArray[np.int16]


@dataclass
class _Canvas:
    """A scene in the making: float32 pixels, owners, and for each digit its glyph, box and area."""

    pixels: FloatArray
    owners: NDArray[np.int16]
    glyphs: list[int] = field(default_factory=list)
    boxes: list[FloatArray] = field(default_factory=list)
    areas: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.pixels)


def _box_of(mask: NDArray[np.bool_]) -> FloatArray:
    """Return the tight x1, y1, x2, y2 of a mask (x2 and y2 exclusive)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float32)


def _largest_iou(box: FloatArray, others: list[FloatArray]) -> float:
    if not others:
        return 0.0
    rows = np.stack(others)
    sides = np.minimum(box[2:], rows[:, 2:]) - np.maximum(box[:2], rows[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    areas = np.prod(rows[:, 2:] - rows[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return float((shared / (areas - shared)).max())


def _window(alpha: FloatArray, size: int, rng: np.random.Generator) -> tuple[slice, slice] | None:
    """Return a random place where the whole drawing fits, or None if it does not fit."""
    height, width = alpha.shape
    if not 0 < height < size or not 0 < width < size:
        return None
    top, left = int(rng.integers(size - height)), int(rng.integers(size - width))
    return slice(top, top + height), slice(left, left + width)


def _blend(
    pixels: FloatArray, alpha: FloatArray, window: tuple[slice, slice], rng: np.random.Generator
) -> None:
    """Paint a drawing in a color that stands out from the pixels under it."""
    region = pixels[window]
    under = region.mean(axis=(0, 1))
    color = rng.uniform(0.0, 255.0, 3)
    if abs(float((color - under).mean())) < _MIN_CONTRAST:
        extreme = 255.0 if under.mean() < 127.5 else 0.0
        color += (extreme - color) * rng.uniform(0.7, 1.0)
    shade = np.linspace(-1.0, 1.0, len(alpha)) * rng.uniform(-_SHADE, _SHADE)
    ink = (color + shade[:, None, None]).astype(np.float32)
    region += alpha[..., None] * (ink - region)


def _hides_an_earlier_digit(
    canvas: _Canvas, covered: NDArray[np.bool_], window: tuple[slice, slice]
) -> bool:
    under = canvas.owners[window][covered]
    return any(
        np.count_nonzero(canvas.owners == row) - np.count_nonzero(under == row)
        < _MIN_VISIBLE * canvas.areas[row]
        for row in np.unique(under[under >= 0])
    )


def _place_digit(canvas: _Canvas, glyph: int, rng: np.random.Generator) -> None:
    """Add a digit where the earlier digits stay mostly visible; give up after some tries."""
    low, high = _GLYPH_HEIGHT
    height = float(np.exp(rng.uniform(*np.log((low, min(high, canvas.size / 2))))))
    alpha = draw_glyph(glyph, height, rng)
    covered = alpha >= _SHOWS
    for _ in range(_PLACEMENT_TRIES):
        window = _window(alpha, canvas.size, rng)
        if window is None:
            return
        box = _box_of(covered) + np.array([window[1].start, window[0].start] * 2, np.float32)
        if _largest_iou(box, canvas.boxes) > _MAX_BOX_IOU:
            continue
        if _hides_an_earlier_digit(canvas, covered, window):
            continue
        canvas.owners[window][covered] = len(canvas.glyphs)
        canvas.glyphs.append(glyph)
        canvas.boxes.append(box)
        canvas.areas.append(int(covered.sum()))
        _blend(canvas.pixels, alpha, window, rng)
        return


def _add_fragments(canvas: _Canvas, glyphs: IntArray, rng: np.random.Generator) -> None:
    """Draw distractors: pieces of digits, with the same handwriting and colors."""
    low, high = _FRAGMENTS_PER_SCENE
    for glyph in rng.choice(glyphs, rng.integers(low, high + 1)):
        alpha = draw_fragment(int(glyph), rng.uniform(*_FRAGMENT_GLYPH_HEIGHT), rng)
        window = _window(alpha, canvas.size, rng)
        if window is not None:
            _blend(canvas.pixels, alpha, window, rng)


def compose_scene(split: str, seed: int, index: int, size: int = SCENE_SIZE) -> Scene:
    """Compose scene ``index`` of ``split``; the same arguments give the same bytes."""
    rng = np.random.default_rng((SPLITS.index(split), seed, index))
    owners = np.full((size, size), -1, dtype=np.int16)
    canvas = _Canvas(textured_background(size, rng), owners)
    _add_fragments(canvas, glyph_indices(split), rng)
    low, high = _DIGITS_PER_SCENE
    for glyph in rng.choice(glyph_indices(split), rng.integers(low, high + 1)):
        _place_digit(canvas, int(glyph), rng)
    noise = rng.standard_normal((size, size, 1), dtype=np.float32)
    canvas.pixels += noise * np.float32(rng.uniform(0.0, _PIXEL_NOISE))
    visible = [_box_of(owners == row) for row in range(len(canvas.glyphs))]
    glyphs = np.array(canvas.glyphs, dtype=np.int64)
    return Scene(
        image=np.clip(canvas.pixels, 0.0, 255.0).astype(np.uint8),
        boxes=np.array(visible, dtype=np.float32).reshape(-1, 4),
        labels=glyph_labels(glyphs),
        glyphs=glyphs,
        owners=owners,
    )


def coco_annotations(scenes: list[Scene], file_names: list[str]) -> dict[str, Any]:
    """Describe scenes in COCO form; ids start at 1 and a category id is the digit plus one."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (scene, name) in enumerate(zip(scenes, file_names, strict=True), start=1):
        height, width = scene.image.shape[:2]
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for row, (box, label) in enumerate(zip(scene.boxes, scene.labels, strict=True)):
            x1, y1, x2, y2 = (float(edge) for edge in box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": CATEGORY_IDS[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": int(np.count_nonzero(scene.owners == row)),
                    "iscrowd": 0,
                }
            )
    categories = [
        {"id": category, "name": name, "supercategory": "digit"}
        for category, name in zip(CATEGORY_IDS, CLASS_NAMES, strict=True)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_scenes(split: str, seed: int, count: int, folder: Path) -> None:
    """Write ``count`` scenes as ``folder/images/*.png`` and ``folder/annotations.json``."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    scenes = [compose_scene(split, seed, index) for index in range(count)]
    names = [f"{split}_{seed}_{index:05d}.png" for index in range(count)]
    for scene, name in zip(scenes, names, strict=True):
        Image.fromarray(scene.image).save(folder / "images" / name, compress_level=1)
    (folder / "annotations.json").write_text(json.dumps(coco_annotations(scenes, names)))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("out", type=Path, metavar="OUT")
    return parser.parse_args()


def main() -> int:
    """Write the scenes that the command line requests."""
    arguments = _parse_arguments()
    write_scenes(arguments.split, arguments.seed, arguments.count, arguments.out)
    sys.stdout.write(f"{arguments.count} scenes of {arguments.split} in {arguments.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
