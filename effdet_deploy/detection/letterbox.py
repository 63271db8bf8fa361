"""A picture of any size in the network's input, and the way back from its boxes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import InputSpec

    Boxes = NDArray[np.float32]


@dataclass(frozen=True)
class Letterbox:
    """How an image was placed in the network's input: at the top-left corner, scaled once.

    Attributes:
        scale: network pixels per image pixel, the same for both axes.
        content: (height, width) of the scaled image inside the network's input.
        image: (height, width) of the original image.
    """

    scale: float
    content: tuple[int, int]
    image: tuple[int, int]

    def to_image(self, boxes: Boxes) -> Boxes:
        """Map xyxy ``boxes`` ``[n,4]`` from network to original pixels, clipped to the image."""
        height, width = self.image
        limits = np.array([width, height, width, height], dtype=np.float32)
        mapped = np.asarray(boxes, dtype=np.float32) * np.float32(1.0 / self.scale)
        clipped: Boxes = np.clip(mapped, np.float32(0), limits)
        return clipped


def letterbox(
    image: NDArray[np.uint8], height: int, width: int, fill: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], Letterbox]:
    """Scale ``image`` ``[h,w,3]`` into the top-left of ``[height,width,3]``, keeping its aspect.

    As effdet's ``ResizePad``: bilinear, the scaled size truncated, the rest in color ``fill``. A
    side that would vanish (a very long or a tiny image) keeps one pixel, where effdet fails.
    """
    rows, columns = image.shape[:2]
    scale = min(height / rows, width / columns)
    content = (max(1, math.floor(rows * scale)), max(1, math.floor(columns * scale)))
    scaled = Image.fromarray(image).resize(content[::-1], Image.Resampling.BILINEAR)
    canvas = np.empty((height, width, 3), dtype=np.uint8)
    canvas[...] = fill
    canvas[: content[0], : content[1]] = np.asarray(scaled)
    return canvas, Letterbox(scale, content, (rows, columns))


def prepare_batch(
    images: Sequence[NDArray[np.uint8]], spec: InputSpec
) -> tuple[NDArray[Any], list[Letterbox]]:
    """Letterbox RGB ``images`` into the array that a graph with the input ``spec`` takes.

    Returns:
        ``[N,H,W,3]`` uint8, or ``[N,3,H,W]`` float32 for ``float255`` and ``normalized``, in the
        spec's channel order; and the letterbox of each image.
    """
    placed = [letterbox(image, spec.height, spec.width, spec.fill) for image in images]
    batch = np.stack([canvas for canvas, _ in placed])
    letterboxes = [each for _, each in placed]
    return to_input(batch, spec), letterboxes


def to_input(batch: NDArray[np.uint8], spec: InputSpec) -> NDArray[Any]:
    """Turn letterboxed RGB images ``[N,H,W,3]`` uint8 into the graph's input tensor."""
    if spec.kind == "uint8":
        return np.ascontiguousarray(batch[..., ::-1]) if spec.channel_order == "bgr" else batch
    planes = batch.transpose(0, 3, 1, 2).astype(np.float32)
    if spec.kind == "normalized":
        mean = np.array(spec.mean, dtype=np.float32) * np.float32(255)
        std = np.array(spec.std, dtype=np.float32) * np.float32(255)
        planes = (planes - mean[:, None, None]) / std[:, None, None]
    if spec.channel_order == "bgr":
        planes = planes[:, ::-1]
    return np.ascontiguousarray(planes)
