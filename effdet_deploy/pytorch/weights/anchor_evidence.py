"""What a bench's anchors say of the configuration that a checkpoint was trained with.

effdet's benches (``DetBenchPredict``, ``DetBenchTrain``) keep their anchors beside the weights.
They are determined by image size, anchor scale, octave scales and aspect ratios, and can be solved
for them: an export that dropped them would find everything in another place, without a word.
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
"""How far anchors of one configuration may lie apart: float16 benches round to some of it."""
_RELATIVE = 1e-3
_WHOLE = 0.1
"""How far from whole pixels an image size may come out."""


@dataclasses.dataclass(frozen=True)
class AnchorEvidence:
    """The configuration fields that a table of anchors determines."""

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
    """Bring ``config`` to what a checkpoint's anchors say.

    Args:
        config: what options, metadata and the variant make.
        boxes: the anchors, ``[A,4]`` yxyx pixels.
        chosen: the fields that the user named; see :func:`settle`.
        name: of the checkpoint.
        heads: how many anchors at a place, and how many levels, its heads were made for; None
            where they are those of ``config``.

    Returns:
        The configuration, and a sentence for each field that differs from what was there.

    Raises:
        WeightsError: the anchors and an option contradict one another, or no configuration of
            these levels has such anchors.
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
        f"'{name}' holds {len(boxes)} anchors that are no grid of {per_place} at each place of "
        f"levels {config.min_level} to {config.min_level + levels - 1}, as its heads are.",
        "Give the network without its bench, with the config fields that it was trained with.",
    )


def _splits(config: ModelConfig, per_place: int, levels: int) -> Iterator[ModelConfig]:
    """Yield configurations with so many anchors: octave scales times aspects, likeliest first.

    However they are split, the anchors are the same.
    """
    deepest = config.min_level + levels - 1
    if (per_place, deepest) == (config.num_anchors, config.max_level):
        yield config
        return
    known = len(config.aspect_ratios)
    first = [config.num_scales, *([per_place // known] if per_place % known == 0 else [])]
    for scales in dict.fromkeys((*first, *range(per_place, 0, -1))):
        aspects, rest = divmod(per_place, scales)
        if rest or min(config.image_size) < 2**deepest:
            continue
        changed: dict[str, Any] = {"max_level": deepest}
        if aspects != known:
            changed["aspect_ratios"] = ((1.0, 1.0),) * aspects
        if scales != config.num_scales:
            changed |= {"num_scales": scales, "octave_scales": ()}
        yield config.replace(changed)


def read_anchors(boxes: NDArray[Any], config: ModelConfig) -> AnchorEvidence | None:
    """Solve ``boxes`` ``[A,4]`` (yxyx, pixels) for what made them.

    Args:
        boxes: levels fine to coarse, then rows, columns, octave scales and aspect ratios.
        config: says how many levels there are, and how many octave scales.

    Returns:
        What made them, or None where the boxes are no such grid.
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
    # Boxes far from the picture speak of pictures whose grid no memory holds.
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
    # Down the first column a step is one stride; the next level begins where it is another.
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
    # NaN is no small difference.
    if not np.abs(octaves[:, 0] - octaves[:, 1]).max() <= _RELATIVE:
        return None
    even = even_octaves(config.num_scales)
    scales = (
        even if np.allclose(octaves[:, 0], even, rtol=_RELATIVE) else tuple(octaves[:, 0].tolist())
    )
    # Scale and aspects are known only as products: a square among the aspects is 1 by 1, and
    # without one the configuration's own scale is taken.
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
