from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from timm.layers import create_pool2d

from effdet_deploy.pytorch.network import EfficientDet, get_config
from effdet_deploy.pytorch.network.blocks import (
    FAST_FUSION_EPS,
    FpnCombine,
    Interpolate2d,
    ResampleFeatureMap,
)
from effdet_deploy.pytorch.network.topology import FUSIONS

CONFIG = get_config("d0").replace({"fpn_channels": 8})
# The error of three products and two sums of values of about one.
SUM_TOLERANCE = 1e-6


def combine(fusion: str) -> FpnCombine:
    sizes = [(8, 8), (4, 4), (2, 2)]
    node = FpnCombine(CONFIG, [8, 8, 8], sizes, (0, 1, 2), (4, 4), fusion)
    if node.edge_weights is not None:
        with torch.no_grad():
            node.edge_weights.copy_(torch.tensor([0.5, -0.25, 2.0]))
    return node


def feature_maps() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 8, side, side, generator=generator) for side in (8, 4, 2)]


def expected(fusion: str) -> torch.Tensor:
    fine, same, coarse = feature_maps()
    # For an even map, SAME padding of a 3x3 pooling with stride 2 is only at the right and bottom.
    pooled = F.max_pool2d(F.pad(fine, (0, 1, 0, 1), value=-torch.inf), 3, 2)
    repeated = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    w = {
        "sum": (1.0, 1.0, 1.0),
        "unbounded": (0.5, -0.25, 2.0),
        "fastattn": (0.5 / (2.5 + FAST_FUSION_EPS), 0.0, 2.0 / (2.5 + FAST_FUSION_EPS)),
        "attn": tuple(torch.tensor([0.5, -0.25, 2.0]).exp().div(15.0).tolist()),
    }[fusion]
    if fusion == "attn":
        exponentials = torch.tensor([0.5, -0.25, 2.0]).exp()
        w = tuple((exponentials / exponentials.sum()).tolist())
    return w[0] * pooled + w[1] * same + w[2] * repeated


@pytest.mark.parametrize("fusion", FUSIONS.values())
@pytest.mark.parametrize("form", ["eager", "scripted", "frozen", "frozen and scripted"])
def test_fusion_is_the_formula_of_section_3_3(fusion, form):
    node = combine(fusion).eval()
    if "frozen" in form:
        node.freeze()
        assert list(node.parameters()) == []
    module = torch.jit.script(node) if "scripted" in form else node
    with torch.no_grad():
        joined = module(feature_maps())
    torch.testing.assert_close(joined, expected(fusion), rtol=0, atol=SUM_TOLERANCE)


def test_freezing_keeps_the_weights_that_are_applied():
    node = combine("fastattn")
    weights = node.fusion_weights()
    node.freeze()
    assert node.fusion_weights() == node.frozen_weights == weights


@pytest.mark.parametrize("side", range(2, 12))
def test_max_pooling_without_a_pad_equals_same_padding(side):
    out = -(-side // 2)
    ours = ResampleFeatureMap(CONFIG, 8, (side, side), (out, out))
    theirs = create_pool2d("max", kernel_size=3, stride=2, padding="same")
    image = torch.randn(1, 8, side, side, generator=torch.Generator().manual_seed(side))
    assert torch.equal(ours(image), theirs(image))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize(
    ("before", "after"), [((4, 4), (8, 8)), ((3, 4), (5, 8)), ((8, 6), (4, 3)), ((5, 7), (3, 4))]
)
def test_interpolation_by_a_factor_equals_interpolation_to_the_size(mode, before, after):
    image = torch.randn(1, 2, *before, generator=torch.Generator().manual_seed(0))
    corners = None if mode == "nearest" else False
    expected = F.interpolate(image, after, mode=mode, align_corners=corners)
    resized = Interpolate2d(before, after, mode)(image)
    torch.testing.assert_close(resized, expected, rtol=0, atol=SUM_TOLERANCE)


@pytest.mark.parametrize("fpn_name", ["fpn_fa", "fpn_attn", "pan_unbounded", "bifpn_unbounded"])
def test_pyramids_that_effdet_lacks_run_eagerly_and_scripted(fpn_name):
    config = CONFIG.replace({"fpn_name": fpn_name, "image_size": 128, "fpn_cell_repeats": 2})
    model = EfficientDet(config).eval()
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        classes, boxes = model(image)
        scripted_classes, scripted_boxes = torch.jit.script(model)(image)
    assert [each.shape[-1] for each in classes] == [16, 8, 4, 2, 1]
    for ours, scripted in zip(
        [*classes, *boxes], [*scripted_classes, *scripted_boxes], strict=True
    ):
        torch.testing.assert_close(ours, scripted, rtol=0, atol=SUM_TOLERANCE)


def test_the_top_down_pyramid_equals_the_formula_in_plain_torch():
    config = CONFIG.replace({"fpn_name": "fpn_sum", "image_size": 128, "fpn_cell_repeats": 1})
    model = EfficientDet(config).eval()
    maps = [
        torch.randn(1, 8, side, side, generator=torch.Generator().manual_seed(side))
        for side in (16, 8, 4, 2, 1)
    ]
    cell = EfficientDet(config.replace({"fpn_cell_repeats": 2})).eval().fpn.cell[1]
    del model
    with torch.no_grad():
        found = cell(maps)
        above = cell.fnode[0].after_combine(maps[4])
        wanted = [above]
        for node, level in zip(cell.fnode[1:], (3, 2, 1, 0), strict=True):
            enlarged = above.repeat_interleave(2, 2).repeat_interleave(2, 3)
            above = node.after_combine(maps[level] + enlarged)
            wanted.insert(0, above)
    for ours, plain in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=SUM_TOLERANCE)
