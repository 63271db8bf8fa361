"""A picture of any size in the network's input, and the way back from its boxes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from effdet_deploy.detection.resampling import resize

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    offset: tuple[int, int] = (0, 0)

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
    vanish (a very long or a tiny image) keeps one pixel, where effdet fails.
    """
    down, across = spec.height / rows, spec.width / columns
    if spec.resize == "stretch":
        return Placement((rows, columns), (spec.height, spec.width), (across, down))
    scale = min(down, across)
    height, width = (max(1, math.floor(each * scale)) for each in (rows, columns))
    left, top = (0, 0)
    if spec.resize == "center":
        left, top = (spec.width - width) // 2, (spec.height - height) // 2
    return Placement((rows, columns), (height, width), (scale, scale), (left, top))


def letterbox(image: NDArray[np.uint8], spec: InputSpec) -> tuple[NDArray[np.uint8], Placement]:
    """Scale an RGB ``image`` ``[h,w,C]`` into the network's input, as ``spec`` says.

    What the picture leaves free is filled with the color ``spec.fill``.

    Returns:
        uint8 ``[height,width,C]``, and where the picture lies in it.
    """
    placed = place(spec, *image.shape[:2])
    scaled = resize(image, *placed.content, spec.interpolation)
    canvas = np.empty((spec.height, spec.width, image.shape[2]), dtype=np.uint8)
    canvas[...] = spec.fill
    (left, top), (height, width) = placed.offset, placed.content
    canvas[top : top + height, left : left + width] = scaled
    return canvas, placed


def prepare_batch(
    images: Sequence[NDArray[np.uint8]], spec: InputSpec
) -> tuple[NDArray[Any], list[Placement]]:
    """Bring RGB ``images`` into the array that a graph with the input ``spec`` takes.

    Returns:
        ``[N,H,W,C]`` uint8, or ``[N,C,H,W]`` float32 for ``float255`` and ``normalized``, in the
        spec's channel order; and the place of each image in it.
    """
    fitted = [letterbox(image, spec) for image in images]
    return to_input(np.stack([canvas for canvas, _ in fitted]), spec), [each for _, each in fitted]


def to_input(batch: NDArray[np.uint8], spec: InputSpec) -> NDArray[Any]:
    """Turn letterboxed RGB images ``[N,H,W,C]`` uint8 into the graph's input tensor."""
    is_bgr = spec.channel_order == "bgr"
    if spec.kind == "uint8":
        return np.ascontiguousarray(batch[..., spec.passed_channels]) if is_bgr else batch
    planes = batch.transpose(0, 3, 1, 2).astype(np.float32)
    if spec.kind == "normalized":
        mean = np.array(spec.mean, dtype=np.float32) * np.float32(255)
        std = np.array(spec.std, dtype=np.float32) * np.float32(255)
        planes = (planes - mean[:, None, None]) / std[:, None, None]
    return np.ascontiguousarray(planes[:, spec.passed_channels] if is_bgr else planes)
