"""NAS-FPN: its cell equals the published one, and it can be scripted, exported and built."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from effdet_deploy.exporters import ExportOptions
from effdet_deploy.exporters.source import load_source
from effdet_deploy.progress import silent
from effdet_deploy.pytorch.network import create_model
from effdet_deploy.pytorch.network.random_weights import randomize
from tests.exporters.every_config import assert_passed, export_graph, verified
from tests.precision.rtx import Build

SIDE = 128
FIGURE_2 = ("fpn_sum", "pan_sum", "nasfpn_sum", "bifpn_fa")
"""Every pyramid of EfficientDet's Figure 2."""
BLOCKS = (
    # As published: level, whether it attends, offsets of its inputs, whether it is an output.
    (4, True, (1, 3), False),
    (4, False, (1, 5), False),
    (3, False, (0, 6), True),
    (4, False, (6, 7), True),
    (5, True, (7, 8), True),
    (7, True, (6, 9), True),
    (6, True, (9, 10), True),
)


def resampled(x: torch.Tensor, level: int, target: int) -> torch.Tensor:
    if level > target:
        return functional.interpolate(x, scale_factor=2 ** (level - target), mode="nearest")
    if level < target:
        stride = 2 ** (target - level)
        # SAME padding: sides are multiples of the stride, so the window's extra row is at the end.
        x = functional.pad(x, (0, 1, 0, 1), value=float("-inf"))
        return functional.max_pool2d(x, stride + 1, stride)
    return x


def published_cell(maps: list[torch.Tensor], convs: list[nn.Module]) -> dict[int, torch.Tensor]:
    """Run the published table on maps of levels 3 to 7; one of ``convs`` follows every join."""
    maps, levels, used = list(maps), [3, 4, 5, 6, 7], [0] * 5
    outputs = {}
    for (level, attends, offsets, is_output), conv in zip(BLOCKS, convs, strict=True):
        first, second = (resampled(maps[each], levels[each], level) for each in offsets)
        for each in offsets:
            used[each] += 1
        if attends and levels[offsets[0]] < levels[offsets[1]]:
            first, second = second, first
        gate = first.flatten(2).max(dim=2).values.sigmoid()[..., None, None] if attends else 1.0
        joined = first + second * gate
        for each in range(len(maps)) if is_output else ():
            if not used[each] and levels[each] == level:
                used[each] = 1
                joined = joined + maps[each]
        maps.append(conv(joined))
        levels.append(level)
        used.append(0)
        if is_output:
            outputs[level] = maps[-1]
    return outputs


def test_a_cell_is_the_published_one():
    model = create_model("d0", image_size=SIDE, fpn_name="nasfpn_sum")
    randomize(model)
    # The first cell also brings the backbone's maps to its own channels.
    cell = model.fpn.cell[1].eval()
    config = model.config
    maps = [torch.randn(2, config.fpn_channels, *size) for size in config.feature_sizes]
    with torch.no_grad():
        found = cell(list(maps))
        expected = published_cell(maps, [node.after_combine for node in cell.fnode])
    for level, each in enumerate(found, 3):
        torch.testing.assert_close(each, expected[level])
    assert not any(name.endswith("edge_weights") for name in cell.state_dict())


@pytest.mark.parametrize("fpn_name", FIGURE_2)
@pytest.mark.parametrize("size", [(128, 128), (160, 232)])
def test_every_pyramid_of_figure_2_gives_equal_outputs_when_scripted(fpn_name, size):
    model = create_model("d0", image_size=size, fpn_name=fpn_name, num_classes=3).eval()
    image = torch.randn(1, 3, *size)
    with torch.no_grad():
        eager, scripted = model(image), torch.jit.script(model)(image)
    for ours, theirs in zip((*eager[0], *eager[1]), (*scripted[0], *scripted[1]), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("fpn_name", ["fpn_sum", "nasfpn_sum"])
def test_pyramids_without_a_published_network_are_exported_verified_and_built(fpn_name, tmp_path):
    """Other tests export the other pyramids of Figure 2."""
    overrides = {"fpn_name": fpn_name, "fpn_cell_repeats": 2}
    size = (128, 168)
    options = ExportOptions(weights="random", image_size=size, overrides=overrides)
    source = load_source("lite0", options, silent)
    path, spec = export_graph(source, options, tmp_path / "graph")
    assert spec.overrides["fpn_name"] == fpn_name
    assert_passed(verified(path, spec, source))
    build = Build(path.read_bytes())
    assert build.errors == []
    assert build.engine is not None
