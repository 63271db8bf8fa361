from __future__ import annotations

import pytest
import torch

from effdet_deploy.errors import UsageError
from effdet_deploy.pytorch.network import create_model, get_config
from effdet_deploy.pytorch.network.scaling import CompoundScale, compound_scale
from effdet_deploy.pytorch.weights.loading import build_model

CHOSEN_BY_HAND = {
    0: {},
    1: {},
    2: {"fpn_channels": (120, 112)},
    3: {},
    4: {"fpn_channels": (216, 224)},
    5: {"fpn_cell_repeats": (8, 7), "image_side": (1152, 1280)},
    6: {"fpn_cell_repeats": (9, 8)},
}
"""For each φ the values by the formulas and those in the paper's table 1, where they differ."""


def registered(phi: int) -> CompoundScale:
    config = get_config(f"d{phi}")
    height, width = config.image_size
    assert height == width
    return CompoundScale(
        config.fpn_channels,
        config.fpn_cell_repeats,
        config.box_class_repeats,
        height,
        int(config.backbone_name.removeprefix("tf_efficientnet_b")),
    )


@pytest.mark.parametrize("phi", CHOSEN_BY_HAND)
def test_the_registered_models_follow_the_formulas_except_where_the_paper_differs(phi):
    formula, chosen = vars(compound_scale(phi)), vars(registered(phi))
    differing = {
        field: (formula[field], chosen[field])
        for field in formula
        if formula[field] != chosen[field]
    }
    assert differing == CHOSEN_BY_HAND[phi]


@pytest.mark.parametrize("phi", range(8))
def test_a_whole_coefficient_is_the_named_network(phi):
    assert get_config(f"phi:{phi}") == get_config(f"phi:{phi}.0") == get_config(f"d{phi}")


@pytest.mark.parametrize("below", range(6))
def test_a_size_between_two_names_lies_between_them(below):
    config = get_config(f"phi:{below}.5")
    lower, upper = get_config(f"d{below}"), get_config(f"d{below + 1}")
    assert lower.fpn_channels < config.fpn_channels < upper.fpn_channels
    assert config.name == f"phi:{below}.5"
    assert config.url == ""
    assert config.backbone_name == upper.backbone_name
    assert config.image_size[0] % 128 == 0


def test_the_paper_s_equations_at_two_and_a_half():
    config = get_config("phi:2.5")
    # 64·1.35^2.5 = 135.5, 3+2.5, 3+⌊2.5/3⌋, 512+320
    assert (config.fpn_channels, config.fpn_cell_repeats, config.box_class_repeats) == (136, 6, 3)
    assert config.image_size == (896, 896)
    assert config.backbone_name == "tf_efficientnet_b3"
    assert config.fpn_name == "bifpn_fa"
    assert get_config("phi:6.2").fpn_name == "bifpn_sum"


@pytest.mark.parametrize("name", ["phi:", "phi:x", "phi:-1", "phi:7.5", "phi:nan", "phi:inf"])
def test_another_coefficient_is_refused(name):
    with pytest.raises(UsageError, match="from 0 to 7"):
        get_config(name)


def test_there_are_only_random_weights_and_the_note_says_so():
    loaded = build_model("phi:0.5", "random", image_size=128, num_classes=2)
    assert loaded.base_config.name == "phi:0.5"
    (note,) = loaded.notes
    assert "72 channels" in note
    assert "tf_efficientnet_b1" in note
    assert "random" in note
    with pytest.raises(UsageError, match=r"There are no published weights for phi:0\.5"):
        build_model("phi:0.5")


def test_a_network_of_another_size_runs_and_scripts():
    model = create_model("phi:0.5", image_size=128, num_classes=2).eval()
    image = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        eager, scripted = model(image), torch.jit.script(model)(image)
    for ours, theirs in zip((*eager[0], *eager[1]), (*scripted[0], *scripted[1]), strict=True):
        assert torch.equal(ours, theirs)
