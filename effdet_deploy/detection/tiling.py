"""Large pictures cut into tiles, for objects that would be lost in a resized picture.

Neighboring tiles overlap. If an object at the border of a tile is shorter than the overlap, the
neighbor shows all of it; therefore a box that touches a border and lies within the overlap is
dropped, whatever its class. If several tiles show all of an object, its boxes are averaged. The
model also runs on the whole picture, for objects longer than the overlap; their boxes replace those
of their parts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.detection.images import MAX_PIXELS, load_image, size_of
from effdet_deploy.detection.pipeline import Outcome
from effdet_deploy.detection.postprocess import iou_with
from effdet_deploy.errors import EffdetDeployError, ImageError, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import OutputSpec
    from effdet_deploy.detection.detections import Detections
    from effdet_deploy.detection.detector import Detector
    from effdet_deploy.detection.images import ImageSource
    from effdet_deploy.detection.largetiff import LargeTiff
    from effdet_deploy.detection.thresholds import ScoreThreshold

    Box = tuple[int, int, int, int]
    Floats = NDArray[np.float32]

OVERLAP = 0.25
_MOST_OVERLAP = 0.9
_TIFF = (".tif", ".tiff")
_SMALLEST_SIDE = 32
_SLACK = 0.02
"""A box counts as touching a border if it is nearer than this share of the tile's side, because
boxes are not exact."""
_INSIDE = 0.7
"""A box at a border counts as part of a fuller box of its class if this share of its area lies
inside the fuller box."""


@dataclass(frozen=True)
class Tiles:
    """The size and the overlap of the tiles that large pictures are cut into.

    Attributes:
        side: the side of the square tiles, in pixels of the picture; tiles are resized to the
            network's input.
        overlap: the least share of a side that neighbors have in common. Objects that are shorter
            than the overlap are taken from the tiles only, longer ones also from the whole picture.

    Raises:
        UsageError: a value is out of range.
    """

    side: int
    overlap: float = OVERLAP

    def __post_init__(self) -> None:
        choose = "Objects should be shorter than the overlap of neighboring tiles."
        refuse(
            (
                f"Tiles of {self.side} pixels are too small.",
                f"Choose {_SMALLEST_SIDE} or more: --tile 1024.",
                self.side < _SMALLEST_SIDE,
            ),
            (
                f"Tiles cannot overlap by {self.overlap}.",
                f"Choose a share from 0 to {_MOST_OVERLAP}. {choose}",
                not 0 <= self.overlap <= _MOST_OVERLAP,
            ),
        )

    def starts(self, length: int) -> list[int]:
        """Return where tiles begin along a side of a picture; they are evenly spread."""
        if length <= self.side:
            return [0]
        step = self.side * (1 - self.overlap)
        count = 1 + int(np.ceil((length - self.side) / step))
        return [round(each) for each in np.linspace(0, length - self.side, count).tolist()]

    def boxes(self, width: int, height: int) -> list[Box]:
        """Return the tiles of a picture: left, top, right and bottom, row by row."""
        return [
            (left, top, min(left + self.side, width), min(top + self.side, height))
            for top in self.starts(height)
            for left in self.starts(width)
        ]


def tiles_of(side: int | None, overlap: float | None, *, fast_decode: bool = False) -> Tiles | None:
    """Return the tiles that options describe; None if the options are not used.

    Raises:
        UsageError: a value is out of range, or options contradict each other.
    """
    if side is None:
        said = "--overlap is the overlap of tiles, but --tile is missing."
        refuse((said, "Add --tile N.", overlap is not None))
        return None
    said = "--fast-decode reads pictures at a smaller size, but tiles need all pixels."
    refuse((said, "Leave --fast-decode or --tile out.", fast_decode))
    return Tiles(side, OVERLAP if overlap is None else overlap)


class _Sheet:
    """A picture that is cut into tiles; the first thread that needs it decodes it, once."""

    def __init__(self, read: Callable[[], NDArray[np.uint8]]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._found: NDArray[np.uint8] | EffdetDeployError | None = None

    def pixels(self) -> NDArray[np.uint8]:
        with self._lock:
            if self._found is None:
                try:
                    self._found = self._read()
                except EffdetDeployError as error:
                    self._found = error
        if isinstance(self._found, EffdetDeployError):
            raise self._found
        return self._found


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a picture that is used like a picture.

    Attributes:
        source: the picture, as it was passed.
        size: (width, height) of the whole picture; None if it cannot be read.
        box: left, top, right and bottom of the part; None for the whole picture.
        sheet: the pixels that the part is cut from.
        top: the row of the picture that the sheet begins with.
    """

    source: Any
    size: tuple[int, int] | None
    box: Box | None
    sheet: _Sheet
    top: int = 0

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return the pixels of the part; the picture is decoded when they are first needed."""
        pixels = self.sheet.pixels()
        if self.box is not None:
            left, top, right, bottom = self.box
            pixels = pixels[top - self.top : bottom - self.top, left:right]
        return np.asarray(pixels, dtype)


def stream_tiled(
    detector: Detector,
    sources: Iterable[ImageSource],
    tiles: Tiles,
    *,
    score_threshold: ScoreThreshold | None = None,
    keep_image: bool = False,
) -> Generator[Outcome]:
    """Detect in any number of pictures, tile by tile; see :meth:`Detector.stream`.

    A picture no larger than a tile is run as it is. Of larger pictures, all tiles and the whole
    picture are run; boxes are in pixels of the picture, and the model's NMS settings apply to all
    of them together. So a picture may have more detections than the model gives at once.

    A TIFF of more than 80 megapixels is read band by band; pictures of this size in other formats
    are refused.

    Args:
        detector: the model.
        sources: pictures, as for :meth:`Detector.stream`.
        tiles: how pictures are cut.
        score_threshold: as for :meth:`Detector.stream`.
        keep_image: whether outcomes hold the decoded pictures; those that are read in bands are
            reduced.
    """
    regions = _regions(sources, tiles, detector.spec.input.channels)
    stream = detector.stream(regions, score_threshold=score_threshold)
    found: list[tuple[Box, Detections]] = []
    error: EffdetDeployError | None = None
    index = 0
    with contextlib.closing(stream) as outcomes:
        for each in outcomes:
            region: Region = each.source
            error = error or each.error
            if region.box is not None:
                # The region is not kept: it holds pixels.
                found += [(region.box, each.detections)] if each.detections else []
                continue
            if error is not None or region.size is None:
                yield Outcome(index, region.source, error=error)
            else:
                size = region.size[::-1]
                merged = each.required().resized(each.size or size, size)
                if found:
                    merged = merge(found, merged, region.size, tiles, detector.spec.output)
                pixels = region.sheet.pixels() if keep_image else None
                yield Outcome(index, region.source, merged, image=pixels, size=size)
            found, error, index = [], None, index + 1


def _regions(sources: Iterable[ImageSource], tiles: Tiles, channels: int) -> Iterator[Region]:
    """Yield the tiles of every picture, and the picture as a whole after them."""
    for source in sources:
        large, sheet, size = _opened(source, channels)
        boxes = tiles.boxes(*size) if size else []
        if len(boxes) > 1:
            for top, row in itertools.groupby(boxes, key=lambda box: box[1]):
                band = sheet
                if large is not None and size is not None:
                    bottom = min(top + tiles.side, size[1])
                    band = _Sheet(partial(large.region, 0, top, size[0], bottom))
                for box in row:
                    yield Region(source, size, box, band, top if large else 0)
        yield Region(source, size, None, sheet)


def _opened(
    source: ImageSource, channels: int
) -> tuple[LargeTiff | None, _Sheet, tuple[int, int] | None]:
    """Return a large TIFF or None, the sheet of a picture, and its size or None if unreadable.

    A sheet decodes the picture when it is first needed. A TIFF that is too large to be decoded at
    once is read in parts; its sheet holds a reduced copy.
    """
    sheet = _Sheet(partial(load_image, source, channels))
    if isinstance(source, str | os.PathLike):
        path = Path(os.fsdecode(source))
        opened = size_of(path)
        if opened is not None and math.prod(opened[0]) <= MAX_PIXELS:
            return None, sheet, opened[0]
        if path.suffix.lower() in _TIFF and path.is_file():
            # Pillow's part for TIFF takes longer to import than all of this package's detection.
            from effdet_deploy.detection.largetiff import LargeTiff

            try:
                large = LargeTiff(path, channels)
            except ImageError as error:
                return None, _Sheet(partial(_raise, error)), None
            if large.width * large.height > MAX_PIXELS:
                return large, _Sheet(large.reduced), (large.width, large.height)
        return None, sheet, None
    try:
        height, width = sheet.pixels().shape[:2]
    except EffdetDeployError:
        return None, sheet, None
    return None, sheet, (width, height)


def _raise(error: EffdetDeployError) -> NDArray[np.uint8]:
    raise error


def merge(
    found: Sequence[tuple[Box, Detections]],
    whole: Detections,
    size: tuple[int, int],
    tiles: Tiles,
    output: OutputSpec,
) -> Detections:
    """Merge the detections in the tiles of a picture with those in the whole picture.

    Args:
        found: the tiles and their detections, with boxes in pixels of the tile.
        whole: the detections in the whole picture; boxes that fit into an overlap are left out.
        size: (width, height) of the picture.
        tiles: how the picture was cut.
        output: the model's output settings, which define the NMS.
    """
    # Evenly spread tiles may overlap more than requested.
    shared = [tiles.side - max(np.diff(tiles.starts(each)).tolist(), default=0) for each in size]
    sides = whole.boxes[:, 2:] - whole.boxes[:, :2]
    long = np.any(sides > np.array(shared), axis=1)
    rows = [(whole.boxes[long], whole.scores[long], whole.labels[long], np.zeros(long.sum(), bool))]
    for box, each in found:
        boxes = each.boxes + np.array(box[:2] * 2, np.float32)
        is_cut, is_in_neighbor = _at_borders(boxes, box, size, shared, tiles.side)
        own = ~is_in_neighbor
        rows.append((boxes[own], each.scores[own], each.labels[own], is_cut[own]))
    boxes, scores, labels, is_cut = (np.concatenate(each) for each in zip(*rows, strict=True))
    order = np.lexsort((-scores, is_cut))
    boxes, scores, labels, is_cut = boxes[order], scores[order], labels[order], is_cut[order]
    groups = np.zeros_like(labels) if output.class_agnostic else labels
    kept, boxes = _fused(boxes, scores, groups, is_cut, output.iou_threshold)
    best = np.argsort(-scores[kept], kind="stable")
    # Without class names in the model, a result names only the classes up to its highest; the
    # longest list has names for all.
    longest = max((whole, *(each for _, each in found)), key=lambda each: len(each.names))
    return dataclasses.replace(
        longest, boxes=boxes[best], scores=scores[kept][best], labels=labels[kept][best]
    )


def _at_borders(
    boxes: Floats, tile: Box, size: tuple[int, int], shared: Sequence[int], side: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which boxes touch a border inside the picture, and which of them a neighbor shows too.

    Args:
        boxes: ``[n,4]`` in pixels of the picture.
        tile: left, top, right and bottom.
        size: (width, height) of the picture.
        shared: how many columns and how many rows of pixels neighbors have in common.
        side: the side of a tile.
    """
    slack = _SLACK * side
    is_cut = np.zeros(len(boxes), bool)
    is_in_neighbor = np.zeros(len(boxes), bool)
    for axis in (0, 1):
        low, high = boxes[:, axis], boxes[:, axis + 2]
        for border, depth, is_inner in (
            (low - tile[axis], high - tile[axis], tile[axis] > 0),
            (tile[axis + 2] - high, tile[axis + 2] - low, tile[axis + 2] < size[axis]),
        ):
            touches = is_inner & (border <= slack)
            is_cut |= touches
            is_in_neighbor |= touches & (depth <= shared[axis])
    return is_cut, is_in_neighbor


def _fused(
    boxes: Floats,
    scores: Floats,
    groups: NDArray[np.int64],
    is_cut: NDArray[np.bool_],
    iou_threshold: float,
) -> tuple[NDArray[np.int64], Floats]:
    """Greedy NMS over the boxes of several tiles; complete boxes come before cut ones.

    A complete box becomes the mean, weighted by the scores, of itself and the boxes that it
    suppresses, which are views of the same object (Solovyev et al. 2021). A cut box is also removed
    if it is a part of another box.

    Returns:
        The rows that are kept, and their boxes.
    """
    kept: list[int] = []
    fused: list[Floats] = []
    alive = np.ones(len(boxes), bool)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    for row in range(len(boxes)):
        if not alive[row]:
            continue
        rivals = row + np.flatnonzero(alive[row:] & (groups[row:] == groups[row]))
        low = np.maximum(boxes[row, :2], boxes[rivals, :2])
        high = np.minimum(boxes[row, 2:], boxes[rivals, 2:])
        inner = np.prod(np.maximum(high - low, np.float32(0)), axis=1)
        is_same = iou_with(boxes[row], boxes[rivals]) > iou_threshold
        alive[rivals[is_same | (is_cut[rivals] & (inner > _INSIDE * areas[rivals]))]] = False
        views = rivals[is_same & (is_cut[rivals] == is_cut[row])]
        kept.append(row)
        fused.append(np.average(boxes[views], axis=0, weights=scores[views].astype(np.float64)))
    return np.array(kept, np.int64), np.array(fused, np.float32).reshape(-1, 4)
