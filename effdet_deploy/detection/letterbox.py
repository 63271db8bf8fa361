"""Bringing pictures of any size into the form that a graph takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.artifact.placement import place, taken_input
from effdet_deploy.artifact.resampling import resize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from effdet_deploy.artifact.placement import Placement
    from effdet_deploy.artifact.spec import InputSpec


def letterbox(
    image: NDArray[np.uint8], spec: InputSpec, placed: Placement | None = None
) -> tuple[NDArray[np.uint8], Placement]:
    """Scale an RGB ``image`` ``[h,w,C]`` into the network's input, as ``spec`` says.

    The part that the picture leaves free gets the color ``spec.fill``.

    Args:
        image: the picture, or a smaller copy of it.
        spec: the description of the input.
        placed: if ``image`` is a smaller copy, where the picture lies in the input; otherwise None.

    Returns:
        uint8 ``[height,width,C]``, and where the picture lies in it.
    """
    placed = placed or place(spec, *image.shape[:2])
    scaled = resize(image, *placed.content, spec.interpolation)
    canvas = np.empty((spec.height, spec.width, image.shape[2]), dtype=np.uint8)
    # DeepStream pads frames with black.
    canvas[...] = spec.fill if spec.frame_area is None else 0
    (left, top), (height, width) = map(int, placed.offset), placed.content
    canvas[top : top + height, left : left + width] = scaled
    return canvas, placed


def prepare_batch(
    images: Sequence[NDArray[np.uint8]], spec: InputSpec
) -> tuple[NDArray[Any], list[Placement]]:
    """Convert RGB ``images`` to the array that a graph with the input ``spec`` takes.

    Returns:
        ``[N,H,W,C]`` uint8, or ``[N,C,H,W]`` float32 for ``float255`` and ``normalized``, in the
        spec's channel order; and the place of every image in it.
    """
    taken = taken_input(spec)
    fitted = [letterbox(image, taken) for image in images]
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
