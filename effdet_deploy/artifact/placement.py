"""Where a picture lies in the network's input, and the way back from its boxes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import InputSpec

Float = TypeVar("Float", np.float32, np.float64)


@dataclass(frozen=True)
class Placement:
    """Where a picture lies in the network's input: input = picture · scale + offset on each axis.

    Attributes:
        image: (height, width) of the picture.
        content: (height, width) of the scaled picture.
        scale: (x, y) network pixels per pixel of the picture.
        offset: (x, y) network pixels left of and above it.
    """

    image: tuple[int, int]
    content: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float] = (0, 0)

    def to_image(self, boxes: NDArray[Float]) -> NDArray[Float]:
        """Map xyxy ``boxes`` ``[n,4]`` from network to original pixels, in their own precision."""
        x, y = self.scale
        shrink = np.array([1 / x, 1 / y] * 2).astype(boxes.dtype)
        mapped: NDArray[Float] = (boxes - np.array(self.offset * 2, boxes.dtype)) * shrink
        return mapped

    def clipped(self, boxes: NDArray[Float]) -> NDArray[Float]:
        """Map ``boxes`` as :meth:`to_image` does, and clip them to the picture."""
        height, width = self.image
        limits = np.array([width, height, width, height], dtype=boxes.dtype)
        inside: NDArray[Float] = np.clip(self.to_image(boxes), boxes.dtype.type(0), limits)
        return inside


def place(spec: InputSpec, rows: int, columns: int) -> Placement:
    """Return where a picture of ``rows`` x ``columns`` comes to lie, by the rule of ``spec``.

    ``letterbox`` is effdet's ``ResizePad``: one scale, the scaled size truncated. A side that would
    vanish (a very long or a tiny image) keeps one pixel, where effdet fails. Frames that DeepStream
    scales lie where it puts them; a picture of another shape is stretched to one, as nvstreammux
    does.
    """
    if spec.frame_area is not None:
        top, left, bottom, right = spec.frame_area
        content = bottom - top, right - left
        ratios = content[1] / columns, content[0] / rows
        return Placement((rows, columns), content, ratios, (left, top))
    down, across = spec.height / rows, spec.width / columns
    if spec.resize == "stretch":
        return Placement((rows, columns), (spec.height, spec.width), (across, down))
    scale = min(down, across)
    height, width = (max(1, math.floor(each * scale)) for each in (rows, columns))
    left, top = (0, 0)
    if spec.resize == "center":
        left, top = (spec.width - width) // 2, (spec.height - height) // 2
    return Placement((rows, columns), (height, width), (scale, scale), (left, top))


def taken_input(spec: InputSpec) -> InputSpec:
    """Return what pictures are fitted into: the network's input, or frames that a graph resizes.

    A picture of another size than the frames is letterboxed into one first.
    """
    if spec.source_size is None:
        return spec
    height, width = spec.source_size
    return replace(spec, height=height, width=width, resize="letterbox", source_size=None)


def shown_input(spec: InputSpec) -> InputSpec:
    """Return what the pictures of a verification are fitted into, to be prepared like any others.

    Where DeepStream scales frames, that is a frame in the size that it has in the input.
    """
    if spec.frame_area is None:
        return spec
    top, left, bottom, right = spec.frame_area
    return replace(
        spec, height=bottom - top, width=right - left, resize="letterbox", frame_size=None
    )


def heads_placement(spec: InputSpec, placed: Placement) -> Placement:
    """Return where a picture lies in the network's input, which anchors and raw heads are of.

    Args:
        spec: of the graph's input.
        placed: where the picture lies in what the graph takes; frames are resized after that.
    """
    if spec.source_size is None:
        return placed
    frame = place(spec, *spec.source_size)
    (x, y), (left, top) = placed.scale, placed.offset
    across, down = frame.scale
    return replace(
        placed,
        scale=(x * across, y * down),
        offset=(left * across + frame.offset[0], top * down + frame.offset[1]),
    )


def box_limits(spec: InputSpec) -> tuple[float, float, float, float] | None:
    """Return where boxes are clipped, in network pixels: top, left, bottom, right; None if nowhere.

    They are clipped to frames whose size the graph knows.
    """
    if spec.source_size is None:
        return spec.frame_area
    placed = place(spec, *spec.source_size)
    (left, top), (across, down), (rows, columns) = placed.offset, placed.scale, placed.image
    return top, left, top + rows * down, left + columns * across
