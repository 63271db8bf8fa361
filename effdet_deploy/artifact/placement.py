"""Where a picture lies in the network's input, and how boxes are mapped back to the picture."""

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
    """The position of a picture in the input: input = picture · scale + offset on both axes.

    Attributes:
        image: (height, width) of the picture.
        content: (height, width) of the scaled picture.
        scale: (x, y), network pixels per pixel of the picture.
        offset: (x, y), network pixels left of and above the picture.
    """

    image: tuple[int, int]
    content: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float] = (0, 0)

    def to_image(self, boxes: NDArray[Float]) -> NDArray[Float]:
        """Map xyxy ``boxes`` ``[n,4]`` from network to original pixels, keeping the dtype."""
        x, y = self.scale
        shrink = np.array([1 / x, 1 / y] * 2).astype(boxes.dtype)
        mapped: NDArray[Float] = (boxes - np.array(self.offset * 2, boxes.dtype)) * shrink
        return mapped

    def clipped(self, boxes: NDArray[Float]) -> NDArray[Float]:
        """Map ``boxes`` as :meth:`to_image` does and clip them to the picture."""
        height, width = self.image
        limits = np.array([width, height, width, height], dtype=boxes.dtype)
        inside: NDArray[Float] = np.clip(self.to_image(boxes), boxes.dtype.type(0), limits)
        return inside


def place(spec: InputSpec, rows: int, columns: int) -> Placement:
    """Return where the resize rule of ``spec`` puts a picture of ``rows`` x ``columns`` pixels.

    ``letterbox`` is effdet's ``ResizePad``: one scale for both sides, and the scaled size
    truncated. If a side of a very long or tiny picture would vanish, it keeps one pixel; effdet
    fails there. Frames that DeepStream scales lie where DeepStream puts them; a picture of another
    shape is stretched to a frame, as nvstreammux does.
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
    """Return the input that pictures are fitted into: the network's, or that of the frames.

    With ``source_size``, frames go in and the graph resizes them; a picture of another size is
    letterboxed into a frame first.
    """
    if spec.source_size is None:
        return spec
    height, width = spec.source_size
    return replace(spec, height=height, width=width, resize="letterbox", source_size=None)


def shown_input(spec: InputSpec) -> InputSpec:
    """Return the input that the pictures of a verification are fitted into.

    For DeepStream this is only the part of the input that a frame covers.
    """
    if spec.frame_area is None:
        return spec
    top, left, bottom, right = spec.frame_area
    return replace(
        spec, height=bottom - top, width=right - left, resize="letterbox", frame_size=None
    )


def heads_placement(spec: InputSpec, placed: Placement) -> Placement:
    """Return where a picture lies in the network's input, to which anchors and raw heads refer.

    Args:
        spec: the graph's input.
        placed: where the picture lies in the graph's input; the graph may resize that input.
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
    """Return where boxes are clipped, in network pixels: top, left, bottom, right; or None.

    Boxes are clipped only where the graph knows the size of the frames.
    """
    if spec.source_size is None:
        return spec.frame_area
    placed = place(spec, *spec.source_size)
    (left, top), (across, down), (rows, columns) = placed.offset, placed.scale, placed.image
    return top, left, top + rows * down, left + columns * across
