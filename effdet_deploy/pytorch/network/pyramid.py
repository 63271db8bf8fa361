"""The feature pyramid: its nodes, and cells of nodes that are repeated."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from effdet_deploy.pytorch.network.blocks import (
    ConvBnAct2d,
    FpnCombine,
    ResampleFeatureMap,
    SeparableConv2d,
    activation,
    norm_factory,
)
from effdet_deploy.pytorch.network.topology import fpn_topology

if TYPE_CHECKING:
    from effdet_deploy.pytorch.network.config import ModelConfig
    from effdet_deploy.pytorch.network.topology import FpnTopology


class Fnode(nn.Module):
    """One node of a pyramid: joins feature maps, then convolves.

    The activation comes before the convolution, or after it if ``conv_bn_relu_pattern`` is set.

    Its type is ``List[Tensor] -> Tensor``, which ``nn.Sequential`` cannot have under TorchScript.
    """

    def __init__(self, config: ModelConfig, combine: nn.Module) -> None:
        super().__init__()
        self.combine = combine
        conv_type = SeparableConv2d if config.separable_conv else ConvBnAct2d
        conv = conv_type(
            config.fpn_channels,
            config.fpn_channels,
            3,
            pad_type=config.pad_type,
            bias=config.redundant_bias and not config.conv_bn_relu_pattern,
            norm=norm_factory(config),
        )
        # Not in place: a node with a single input map would overwrite it.
        act = activation(config.act_type, inplace=False)
        self.after_combine = nn.Sequential(
            OrderedDict(conv=conv, act=act)
            if config.conv_bn_relu_pattern
            else OrderedDict(act=act, conv=conv)
        )

    def forward(self, x: list[Tensor]) -> Tensor:
        """Map the cell's feature maps so far to one more map."""
        return self.after_combine(self.combine(x))


class BiFpnLayer(nn.Module):
    """One cell of the pyramid, with any topology."""

    def __init__(self, config: ModelConfig, topology: FpnTopology, in_channels: list[int]) -> None:
        super().__init__()
        channels = in_channels + [config.fpn_channels] * len(topology.nodes)
        levels = [node.level - config.min_level for node in topology.nodes]
        sizes = [*config.feature_sizes, *(config.feature_sizes[level] for level in levels)]
        self.fnode = nn.ModuleList(
            Fnode(
                config,
                FpnCombine(
                    config, channels, sizes, node.inputs, config.feature_sizes[level], node.fusion
                ),
            )
            for node, level in zip(topology.nodes, levels, strict=True)
        )
        self.outputs = list(topology.outputs)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Map one feature map per level, fine to coarse, to the maps after this cell."""
        maps = list(x)
        for node in self.fnode:
            maps.append(node(maps))
        return [maps[index] for index in self.outputs]


class SequentialList(nn.Sequential):
    """``nn.Sequential`` with the type ``List[Tensor] -> List[Tensor]``."""

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Apply every module in turn."""
        for module in self:
            x = module(x)
        return x


class BiFpn(nn.Module):
    """The whole pyramid: extra coarse levels, then repeated cells."""

    def __init__(self, config: ModelConfig, backbone_channels: list[int]) -> None:
        super().__init__()
        channels = list(backbone_channels)
        self.resample = nn.ModuleDict()
        for level in range(len(channels), config.num_levels):
            self.resample[str(level)] = ResampleFeatureMap(
                config, channels[-1], config.feature_sizes[level - 1], config.feature_sizes[level]
            )
            channels.append(config.fpn_channels)
        topology = fpn_topology(config.fpn_name, config.min_level, config.max_level)
        self.cell = SequentialList()
        for _ in range(config.fpn_cell_repeats):
            self.cell.append(BiFpnLayer(config, topology, channels))
            channels = [config.fpn_channels] * config.num_levels

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Map the backbone's features to ``num_levels`` maps of ``[N,fpn_channels,h,w]``."""
        maps = list(x)
        for resample in self.resample.values():
            maps.append(resample(maps[-1]))
        return self.cell(maps)


def absorbed_weights(pyramid: BiFpn) -> dict[str, tuple[FpnCombine, int]]:
    """Return the fusion weights that can be folded into the convolution before them.

    This is possible if no operation stands between the convolution and the weight, and if only one
    node reads the convolution's map.

    Returns:
        Name of the convolving layer, a submodule of ``pyramid`` → the node that joins the layer's
        map with others, and the position of the map's weight in this node.
    """
    readers: Counter[str] = Counter()
    weighted: dict[str, tuple[FpnCombine, int]] = {}
    # Maps from outside the pyramid are not examined.
    cells: list[Any] = list(pyramid.cell)
    maps = [""] * len(cells[0].outputs)
    for row, cell in enumerate(cells):
        for column, node in enumerate(cell.fnode):
            path = f"cell.{row}.fnode.{column}"
            for position, (index, resample) in enumerate(
                zip(node.combine.inputs, node.combine.resample.items(), strict=True)
            ):
                key, layers = resample
                inside = [name for name, _ in layers.named_children()]
                made_by = maps[index]
                readers[made_by] += 1
                if inside == ["conv"]:
                    weighted[f"{path}.combine.resample.{key}.conv"] = node.combine, position
                elif not inside:
                    weighted[made_by] = node.combine, position
                else:
                    readers[made_by] += 1
            last = list(dict(node.after_combine.named_children()))[-1]
            maps.append(f"{path}.after_combine.conv" if last == "conv" else "")
        maps = [maps[index] for index in cell.outputs]
    readers.update(maps)
    return {name: found for name, found in weighted.items() if name and readers[name] <= 1}
