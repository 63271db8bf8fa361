"""Compound scaling: one coefficient for the width, the depth and the resolution of everything.

EfficientDet (arXiv:1911.09070), section 4.2, equations 1-3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_PHI = 7
"""D7's; D7x departs from the equations."""
_BASE_WIDTH = 64
_WIDTH_GROWTH = 1.35
_WIDTH_STEP = 8
"""Widths are rounded to what hardware likes."""
_SIDE_STEP = 128
"""Of the paper: the coarsest of five levels, 2^7 times smaller, has whole sides."""


@dataclass(frozen=True)
class CompoundScale:
    """What one coefficient gives; ``image_side`` is in pixels, ``backbone`` the n of B-n."""

    fpn_channels: int
    fpn_cell_repeats: int
    box_class_repeats: int
    image_side: int
    backbone: int


def compound_scale(phi: float) -> CompoundScale:
    """Return the paper's equations at ``phi``, which is 0 for D0, rounded to the nearest.

    W = 64·1.35^φ to a multiple of 8, D = 3+φ, heads 3+⌊φ/3⌋, R = 512+128φ to a multiple of 128.
    The registered variants follow them except where the paper itself departs from them by hand.
    The backbone is the EfficientNet whose own coefficient is nearest.
    """
    width = _BASE_WIDTH * _WIDTH_GROWTH**phi
    # Halves go up: 2.5 lies between D2 and D3, and is to be larger than D2.
    nearest = math.floor(phi + 0.5)
    return CompoundScale(
        fpn_channels=_WIDTH_STEP * round(width / _WIDTH_STEP),
        fpn_cell_repeats=3 + nearest,
        box_class_repeats=3 + math.floor(phi / 3),
        image_side=512 + _SIDE_STEP * nearest,
        backbone=nearest,
    )
