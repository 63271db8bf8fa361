from __future__ import annotations

import pytest

from effdet_deploy.pytorch.network import get_config
from tests.pytorch.network.compound_scaling import CompoundScale, compound_scale

CHOSEN_BY_HAND = {
    0: {},
    1: {},
    2: {"fpn_channels": (120, 112)},
    3: {},
    4: {"fpn_channels": (216, 224)},
    5: {"fpn_cell_repeats": (8, 7), "image_side": (1152, 1280)},
    6: {"fpn_cell_repeats": (9, 8)},
}
"""φ → what the formulas give and what the paper's table 1 registers, where they differ."""


def registered(phi: int) -> CompoundScale:
    config = get_config(f"d{phi}")
    height, width = config.image_size
    assert height == width
    return CompoundScale(
        config.fpn_channels, config.fpn_cell_repeats, config.box_class_repeats, height
    )


@pytest.mark.parametrize("phi", CHOSEN_BY_HAND)
def test_the_registered_models_follow_the_formulas_but_where_the_paper_chose_by_hand(phi):
    formula, chosen = vars(compound_scale(phi)), vars(registered(phi))
    differing = {
        field: (formula[field], chosen[field])
        for field in formula
        if formula[field] != chosen[field]
    }
    assert differing == CHOSEN_BY_HAND[phi]
