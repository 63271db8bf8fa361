"""The configuration of a training, as far as it follows from the anchors in a checkpoint.

effdet's benches (``DetBenchPredict``, ``DetBenchTrain``) keep their anchors beside the weights.
Anchors follow from image size, anchor scale, octave scales and aspect ratios, and these values can
be computed from the anchors. An export with other anchors would silently find all boxes in other
places.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.artifact.anchors import anchor_boxes, anchor_count
from effdet_deploy.artifact.spec import AnchorSpec, even_octaves
from effdet_deploy.errors import WeightsError
from effdet_deploy.pytorch.network.config import MAX_IMAGE_SIDE
from effdet_deploy.pytorch.weights.agreement import settle

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

    from effdet_deploy.pytorch.network.config import ModelConfig

_PIXELS = 1e-2
"""Coordinates that differ by less count as equal: a bench in float16 rounds its anchors so much."""
_RELATIVE = 1e-3
"""Sizes and scales that differ by a smaller share count as equal."""
_WHOLE = 0.1
"""How far a computed image size may lie from whole pixels."""


@dataclasses.dataclass(frozen=True)
class AnchorEvidence:
    """The configuration fields that follow from a table of anchors."""

    image_size: tuple[int, int]
    anchor_scale: float
    octave_scales: tuple[float, ...]
    aspect_ratios: tuple[tuple[float, float], ...]


def with_anchors(
    config: ModelConfig,
    boxes: NDArray[Any],
    chosen: Collection[str],
    name: str,
    heads: tuple[int, int] | None = None,
) -> tuple[ModelConfig, tuple[str, ...]]:
    """Change ``config`` to the values that follow from a checkpoint's anchors.

    Args:
        config: the configuration so far, from options, metadata and the variant.
        boxes: the anchors, ``[A,4]`` yxyx pixels.
        chosen: the fields that the user named; see :func:`settle`.
        name: the name of the checkpoint.
        heads: the number of anchors at a place of a feature map, and the number of levels, in the
            checkpoint's heads; None if they are those of ``config``.

    Returns:
        The configuration, and a sentence for every field that was changed.

    Raises:
        WeightsError: the anchors contradict an option, or no configuration with these levels has
            these anchors.
    """
    per_place, levels = heads or (config.num_anchors, config.num_levels)
    for each in _splits(config, per_place, levels):
        if (found := read_anchors(boxes, each)) is not None:
            said = dict(vars(found))
            if each.num_scales != config.num_scales:
                said |= {"num_scales": each.num_scales}
            if each.max_level != config.max_level:
                said |= {"max_level": each.max_level}
            if found.octave_scales == even_octaves(each.num_scales) and not config.octave_scales:
                said.pop("octave_scales")
            return settle(config, said, chosen, f"the anchors in '{name}'")
    raise WeightsError(
        f"The {len(boxes)} anchors in '{name}' do not fit its heads, which need {per_place} "
        f"anchors at every place of levels {config.min_level} to {config.min_level + levels - 1}.",
        "Save only the network (bench.model in effdet), and pass the anchors of its training with "
        "--config FILE.",
    )


def _splits(config: ModelConfig, per_place: int, levels: int) -> Iterator[ModelConfig]:
    """Yield configurations that split ``per_place`` into octave scales times aspect ratios.

    The likeliest split comes first. The anchors do not depend on the split.
    """
    deepest = config.min_level + levels - 1
    if (per_place, deepest) == (config.num_anchors, config.max_level):
        yield config
        return
    known = len(config.aspect_ratios)
    first = [config.num_scales, *([per_place // known] if per_place % known == 0 else [])]
    for scales in dict.fromkeys((*first, *range(per_place, 0, -1))):
        aspects, remainder = divmod(per_place, scales)
        if remainder or min(config.image_size) < 2**deepest:
            continue
        changed: dict[str, Any] = {"max_level": deepest}
        if aspects != known:
            changed["aspect_ratios"] = ((1.0, 1.0),) * aspects
        if scales != config.num_scales:
            changed |= {"num_scales": scales, "octave_scales": ()}
        yield config.replace(changed)


def read_anchors(boxes: NDArray[Any], config: ModelConfig) -> AnchorEvidence | None:
    """Find the fields that made the anchors ``boxes`` ``[A,4]`` (yxyx, pixels).

    Args:
        boxes: levels fine to coarse, then rows, columns, octave scales and aspect ratios.
        config: a configuration with the number of levels and of octave scales.

    Returns:
        The fields, or None if no fields give these boxes.
    """
    boxes = np.asarray(boxes, np.float64)
    per_place = config.num_anchors
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) < per_place or len(boxes) % per_place:
        return None
    if not np.isfinite(boxes).all():
        return None
    grid = boxes.reshape(-1, per_place, 4)
    centers = (grid[:, 0, :2] + grid[:, 0, 2:]) / 2
    size = _image_size(centers)
    if size is None or min(size) < 2**config.max_level:
        return None
    stride = 2 * centers[0]
    sides = (grid[0, :, 2:] - grid[0, :, :2]) / stride
    if not (sides > 0).all():
        return None
    made = _shapes(sides, config)
    if made is None:
        return None
    scale, octaves, aspects = made
    spec = AnchorSpec(config.min_level, config.max_level, octaves, aspects, scale)
    # Boxes far from the picture would need a grid that exceeds all memory.
    if anchor_count(spec, *size) != len(boxes):
        return None
    rebuilt = anchor_boxes(spec, *size)
    if not np.abs(rebuilt - boxes).max() <= max(_PIXELS, _RELATIVE * max(size)):
        return None
    return AnchorEvidence(size, scale, octaves, aspects)


def _image_size(centers: NDArray[np.float64]) -> tuple[int, int] | None:
    """Return (height, width) from the centers ``[places,2]``: the finest level comes first."""
    lower = np.flatnonzero(np.abs(centers[:, 0] - centers[0, 0]) > _PIXELS)
    columns = int(lower[0]) if len(lower) else len(centers)
    # Down the first column, steps are one stride; a new level begins where the step changes.
    steps = np.diff(centers[::columns, 0])
    next_level = np.flatnonzero(np.abs(steps - 2 * centers[0, 0]) > _PIXELS)
    rows = int(next_level[0] if len(next_level) else len(steps)) + 1
    height, width = 2 * centers[0, 0] * rows, 2 * centers[0, 1] * columns
    if not 0 < min(height, width) <= max(height, width) <= MAX_IMAGE_SIDE:
        return None
    if not abs(height - round(height)) + abs(width - round(width)) < _WHOLE:
        return None
    return round(height), round(width)


def _shapes(
    sides: NDArray[np.float64], config: ModelConfig
) -> tuple[float, tuple[float, ...], tuple[tuple[float, float], ...]] | None:
    """Split the sides (h, w) of a place's anchors into scale, octave scales, aspects (w, h)."""
    per_octave = sides.reshape(config.num_scales, -1, 2)
    octaves = per_octave[:, 0] / per_octave[0, 0]
    # A difference of NaN is refused too, because NaN <= x is false.
    if not np.abs(octaves[:, 0] - octaves[:, 1]).max() <= _RELATIVE:
        return None
    even = even_octaves(config.num_scales)
    scales = (
        even if np.allclose(octaves[:, 0], even, rtol=_RELATIVE) else tuple(octaves[:, 0].tolist())
    )
    # Only products of scale and aspects are known: if an aspect is square, it is taken as 1 by 1;
    # without a square one, the configuration's own scale is taken.
    first = per_octave[0]
    squares = first[np.abs(first[:, 0] - first[:, 1]) < _RELATIVE * first[:, 0]]
    scale = float(squares[0, 0]) if len(squares) else config.anchor_scale
    if abs(scale - round(scale, 3)) < _RELATIVE * scale:
        scale = round(scale, 3)
    found = first[:, ::-1] / scale
    known = np.array(config.aspect_ratios)
    same = found.shape == known.shape and np.allclose(found, known, rtol=_RELATIVE)
    aspects = config.aspect_ratios if same else tuple((float(w), float(h)) for w, h in found)
    return scale, scales, aspects
