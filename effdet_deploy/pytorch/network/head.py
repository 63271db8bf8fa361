"""The class and box heads: all levels share the convolutions, and have BatchNorms of their own.

TorchScript reads class annotations as objects, hence no ``from __future__ import annotations``.
"""

# ruff: noqa: B905 - TorchScript's zip has no strict. This stands here and not in the lines with zip,
# because TorchScript would take a text after their "type: ignore" for a type comment.
from collections import OrderedDict
from functools import partial
from typing import Any, Final

from torch import Tensor, nn

from effdet_deploy.pytorch.network.blocks import (
    ConvBnAct2d,
    SeparableConv2d,
    activation,
    norm_factory,
)
from effdet_deploy.pytorch.network.config import ModelConfig


class HeadNet(nn.Module):
    """The class head or the box head.

    A repeat is one of the head's convolutions before the last. ``bn_rep`` is indexed
    [repeat][level], or [level][repeat] if ``config.head_bn_level_first`` is true: checkpoints exist
    in both orders.
    """

    level_first: Final[bool]

    def __init__(self, config: ModelConfig, num_outputs: int) -> None:
        super().__init__()
        self.level_first = config.head_bn_level_first
        self.num_levels = config.num_levels
        conv_type = SeparableConv2d if config.separable_conv else ConvBnAct2d
        self.conv_rep = nn.ModuleList(
            conv_type(
                config.fpn_channels,
                config.fpn_channels,
                3,
                pad_type=config.pad_type,
                bias=config.redundant_bias,
                norm=None,
            )
            for _ in range(config.box_class_repeats)
        )
        repeats, levels = range(config.box_class_repeats), range(config.num_levels)
        norm = partial(norm_factory(config), config.fpn_channels)
        # Repeat-first checkpoints call a BatchNorm ``bn_rep.{repeat}.{level}.bn``.
        self.bn_rep = nn.ModuleList(
            nn.ModuleList(norm() for _ in repeats)
            if self.level_first
            else nn.ModuleList(nn.Sequential(OrderedDict(bn=norm())) for _ in levels)
            for _ in (levels if self.level_first else repeats)
        )
        act_type = config.head_act_type or config.act_type
        self.act = activation(act_type, inplace=True)
        self.predict = conv_type(
            config.fpn_channels,
            num_outputs * config.num_anchors,
            3,
            pad_type=config.pad_type,
            bias=True,
            norm=None,
        )

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Map ``[N,C,h,w]`` of every level to ``[N,anchors·outputs,h,w]``."""
        maps = list(x)
        # Both loops follow the nesting of the module lists: TorchScript unrolls them, cannot
        # index them, and has no zip(strict=).
        if self.level_first:
            for level, norms in enumerate(self.bn_rep):
                for conv, norm in zip(self.conv_rep, norms):  # type: ignore[call-overload]
                    maps[level] = self.act(norm(conv(maps[level])))
        else:
            for conv, norms in zip(self.conv_rep, self.bn_rep):
                for level, norm in enumerate(norms):  # type: ignore[arg-type]
                    maps[level] = self.act(norm(conv(maps[level])))
        return [self.predict(level_map) for level_map in maps]

    def norm(self, repeat: int, level: int) -> Any:
        """Return the BatchNorm after a repeat's convolution at a level."""
        if self.level_first:
            return self.bn_rep[level][repeat]  # type: ignore[index]
        return self.bn_rep[repeat][level].bn  # type: ignore[index]
