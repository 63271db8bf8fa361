"""Compound scaling: one coefficient for the width, the depth and the resolution of everything.

EfficientDet (arXiv:1911.09070), section 4.2, equations 1-3.
"""

from __future__ import annotations

from dataclasses import dataclass

_BASE_WIDTH = 64
_WIDTH_GROWTH = 1.35
_WIDTH_STEP = 8
"""Widths are rounded to what hardware likes."""


@dataclass(frozen=True)
class CompoundScale:
    """What one coefficient gives; ``image_side`` is in pixels."""

    fpn_channels: int
    fpn_cell_repeats: int
    box_class_repeats: int
    image_side: int


def compound_scale(phi: int) -> CompoundScale:
    """Return the paper's formulas at ``phi``, which is 0 for D0.

    W = 64·1.35^φ rounded to a multiple of 8, D = 3+φ, heads 3+⌊φ/3⌋, R = 512+128φ. The registered
    variants follow them except where the paper itself departs from them by hand.
    """
    width = _BASE_WIDTH * _WIDTH_GROWTH**phi
    return CompoundScale(
        fpn_channels=_WIDTH_STEP * round(width / _WIDTH_STEP),
        fpn_cell_repeats=3 + phi,
        box_class_repeats=3 + phi // 3,
        image_side=512 + 128 * phi,
    )
