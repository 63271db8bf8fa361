"""Compound scaling: one coefficient sets width, depth and resolution of the whole network.

EfficientDet (arXiv:1911.09070), section 4.2, equations 1-3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_PHI = 7
"""The coefficient of D7; D7x departs from the equations."""
_BASE_WIDTH = 64
_WIDTH_GROWTH = 1.35
_WIDTH_STEP = 8
"""Widths are rounded to multiples of this, which hardware computes fast."""
_SIDE_STEP = 128
"""Image sides are multiples of 2^7, as in the paper: then the coarsest of five levels has whole
sides."""


@dataclass(frozen=True)
class CompoundScale:
    """Sizes for one coefficient: ``image_side`` in pixels, ``backbone`` as n of EfficientNet-Bn."""

    fpn_channels: int
    fpn_cell_repeats: int
    box_class_repeats: int
    image_side: int
    backbone: int


def compound_scale(phi: float) -> CompoundScale:
    """Evaluate the paper's equations at ``phi``, which is 0 for D0, with rounding to the nearest.

    Channels are 64·1.35^φ to a multiple of 8, pyramid cells 3+φ, repeats in the heads 3+⌊φ/3⌋, and
    the image side is 512+128φ to a multiple of 128. The registered variants follow these equations,
    except where the paper's own table does not. The backbone is the EfficientNet with the nearest
    coefficient.
    """
    width = _BASE_WIDTH * _WIDTH_GROWTH**phi
    # Halves are rounded up: 2.5 lies between D2 and D3, and must be larger than D2.
    nearest = math.floor(phi + 0.5)
    return CompoundScale(
        fpn_channels=_WIDTH_STEP * round(width / _WIDTH_STEP),
        fpn_cell_repeats=3 + nearest,
        box_class_repeats=3 + math.floor(phi / 3),
        image_side=512 + _SIDE_STEP * nearest,
        backbone=nearest,
    )
