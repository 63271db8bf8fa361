"""The anchor grid, in the order of the network's outputs."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import AnchorSpec


def feature_sizes(height: int, width: int, max_level: int) -> list[tuple[int, int]]:
    """Return (height, width) of levels 0 to ``max_level``; every level halves the previous one.

    Halves are rounded up.
    """
    sizes = [(height, width)]
    for _ in range(max_level):
        rows, columns = sizes[-1]
        sizes.append(((rows + 1) // 2, (columns + 1) // 2))
    return sizes


def anchor_count(anchors: AnchorSpec, height: int, width: int) -> int:
    """Return how many anchors an image of this size has."""
    cells = feature_sizes(height, width, anchors.max_level)[anchors.min_level :]
    return sum(rows * columns for rows, columns in cells) * (
        len(anchors.octave_scales) * len(anchors.aspect_ratios)
    )


@functools.lru_cache(maxsize=8)
def anchor_boxes(anchors: AnchorSpec, height: int, width: int) -> NDArray[np.float32]:
    """Return every anchor as yxyx float32 ``[A,4]`` in network pixels; the array is read-only.

    The order is levels fine to coarse, then rows, columns, octave scales and aspect ratios, as in
    effdet's ``Anchors``. A stride is the image's size divided by the level's, so the strides of the
    two axes differ if a size is not a multiple of ``2**max_level``.
    """
    sizes = feature_sizes(height, width, anchors.max_level)
    levels = [
        _level_anchors(anchors, (height, width), sizes[level])
        for level in range(anchors.min_level, anchors.max_level + 1)
    ]
    boxes = np.concatenate(levels).astype(np.float32)
    boxes.flags.writeable = False
    return boxes


def anchor_centers(anchors: AnchorSpec, height: int, width: int) -> NDArray[np.float32]:
    """Return anchors ``[A,4]`` float32 as (y, x, h, w): center and size in network pixels."""
    boxes = anchor_boxes(anchors, height, width)
    low, high = boxes[:, :2], boxes[:, 2:]
    centers: NDArray[np.float32] = np.concatenate([(low + high) / 2, high - low], axis=1)
    return centers


def _level_anchors(
    anchors: AnchorSpec, image: tuple[int, int], cells: tuple[int, int]
) -> NDArray[np.float64]:
    stride_y, stride_x = image[0] / cells[0], image[1] / cells[1]
    half_sizes = np.array(
        [
            (
                anchors.scale * stride_y * octave * aspect_y / 2,
                anchors.scale * stride_x * octave * aspect_x / 2,
            )
            for octave in anchors.octave_scales
            for aspect_x, aspect_y in anchors.aspect_ratios
        ]
    )
    y = np.arange(stride_y / 2, image[0], stride_y)
    x = np.arange(stride_x / 2, image[1], stride_x)
    centers = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    corners = np.concatenate([centers - half_sizes, centers + half_sizes], axis=-1)
    return corners.reshape(-1, 4)
