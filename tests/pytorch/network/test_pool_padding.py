"""A max pooling that is padded with zeros, like zylo117's, equals the pooling of a padded map."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from effdet_deploy.pytorch.network import create_model, get_config
from effdet_deploy.pytorch.network.blocks import ResampleFeatureMap


def padded(x: torch.Tensor, stride: int = 2, value: float = 0.0) -> torch.Tensor:
    """Pool ``x`` with TensorFlow's SAME padding; the window is one wider than the stride."""
    sides = []
    for side in (x.shape[3], x.shape[2]):
        total = max(0, (-(-side // stride) - 1) * stride + stride + 1 - side)
        sides += [total // 2, total - total // 2]
    return functional.max_pool2d(functional.pad(x, sides, value=value), stride + 1, stride)


@pytest.mark.parametrize("padding", ["zero", "lowest"])
@pytest.mark.parametrize("height", [4, 8, 14, 15, 16, 17, 19])
@pytest.mark.parametrize("width", [4, 12, 13, 15])
def test_a_pooling_over_two_levels_is_padded_as_tensorflow_pads_it(height, width, padding):
    quartered = (-(-height // 4), -(-width // 4))
    strides = {(side - 1) // out + 1 for side, out in zip((height, width), quartered, strict=True)}
    if strides != {4}:
        pytest.skip("a side has another stride than 4")
    config = get_config("d0").replace({"pool_padding": padding})
    pool = ResampleFeatureMap(config, config.fpn_channels, (height, width), quartered)
    x = torch.randn(2, config.fpn_channels, height, width) - 1
    assert torch.equal(pool(x), padded(x, 4, 0.0 if padding == "zero" else float("-inf")))


@pytest.mark.parametrize("height", [2, 3, 4, 5, 8, 9, 32])
@pytest.mark.parametrize("width", [2, 3, 6, 7, 16])
def test_windows_over_the_border_see_zeros(height, width):
    config = get_config("d0").replace({"pool_padding": "zero"})
    halved = ((height + 1) // 2, (width + 1) // 2)
    pool = ResampleFeatureMap(config, config.fpn_channels, (height, width), halved)
    # Most values are below zero, where the padding decides the maximum.
    x = torch.randn(2, config.fpn_channels, height, width) - 1
    assert torch.equal(pool(x), padded(x))


@pytest.mark.parametrize(
    "overrides", [{"pool_padding": "zero"}, {"feature_blocks": ((2, 1), (4, 2), (6, 0))}]
)
def test_parts_of_other_projects_networks_give_equal_results_when_scripted(overrides):
    model = create_model("d1", num_classes=3, image_size=160, **overrides).eval()
    image = torch.randn(1, 3, 160, 160)
    eager, scripted = model(image), torch.jit.script(model)(image)
    for ours, theirs in zip((*eager[0], *eager[1]), (*scripted[0], *scripted[1]), strict=True):
        assert torch.equal(ours, theirs)


def test_feature_blocks_drop_the_blocks_after_the_last_one_named():
    ends = create_model("d1", image_size=160).backbone
    named = create_model("d1", image_size=160, feature_blocks=((2, 1), (4, 2), (6, 0))).backbone
    assert [len(stage) for stage in ends.blocks] == [2, 3, 3, 4, 4, 5, 2]
    assert [len(stage) for stage in named.blocks] == [2, 3, 3, 4, 4, 5, 1]
