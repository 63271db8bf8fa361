"""The heads as they are exported: BatchNorms folded, and one predict layer for all levels.

TorchScript reads class annotations as objects, hence no ``from __future__ import annotations``.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from effdet_deploy.pytorch.network.blocks import SeparableConv2d, last_conv


class FoldedHead(nn.Module):
    """A head whose per-level BatchNorms are folded into separate convolutions per level.

    All levels still share the depthwise convolutions and the predict layer.
    """

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.conv_rep = nn.ModuleList()
        for repeat, conv in enumerate(head.conv_rep):
            norms = [head.norm(repeat, level) for level in range(head.num_levels)]
            self.conv_rep.append(_FoldedRepeat(conv, norms, head.act))
        separable = isinstance(head.predict, SeparableConv2d)
        self.predict = (SeparablePredict if separable else DensePredict)(head.predict)

    def forward(self, x: list[Tensor]) -> Tensor:
        """Map ``[N,C,h,w]`` of every level to ``[N·positions,anchors·outputs]``, fine to coarse."""
        maps = x
        for repeat in self.conv_rep:
            maps = repeat(maps)
        rows: Tensor = self.predict(maps)
        return rows


class SeparablePredict(nn.Module):
    """A separable predict layer that joins the levels before its pointwise half.

    The outputs of the pointwise half are by far the largest tensors after the backbone. One matrix
    product over the positions of all levels gives them in the order in which decoding reads them,
    so that these large tensors are neither reordered nor joined afterwards.
    """

    def __init__(self, predict: SeparableConv2d) -> None:
        super().__init__()
        self.conv_dw = predict.conv_dw
        self.conv_pw = Pointwise(predict.conv_pw)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map ``[N,C,h,w]`` of every level to ``[N·positions,anchors·outputs]``."""
        rows: Tensor = self.conv_pw(join_levels([self.conv_dw(each) for each in maps]))
        return rows


class DensePredict(nn.Module):
    """A predict layer that is a full convolution."""

    def __init__(self, predict: Any) -> None:
        super().__init__()
        self.conv = predict.conv

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map ``[N,C,h,w]`` of every level to ``[N·positions,anchors·outputs]``."""
        return join_levels([self.conv(each) for each in maps])


class Pointwise(nn.Module):
    """A 1x1 convolution computed as a matrix product, with channels last."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: Any) -> None:
        super().__init__()
        self.register_buffer("weight", conv.weight.detach()[:, :, 0, 0].t().contiguous())
        self.register_buffer("bias", conv.bias.detach().clone())

    def forward(self, rows: Tensor) -> Tensor:
        """Map ``[positions,Cin]`` to ``[positions,Cout]``."""
        return torch.addmm(self.bias, rows, self.weight)


class AnchorRows(nn.Module):
    """Gives every image a table in which every anchor is a row."""

    def __init__(self, anchors: int, outputs: int) -> None:
        super().__init__()
        self.anchors = anchors
        self.outputs = outputs

    def forward(self, rows: Tensor) -> Tensor:
        """Map ``[N·positions,anchors·outputs]`` to ``[N,A,outputs]``."""
        return rows.reshape(-1, self.anchors, self.outputs)


def join_levels(maps: list[Tensor]) -> Tensor:
    """Join ``[N,C,h,w]`` of every level to ``[N·positions,C]``, image by image, fine to coarse."""
    rows = [each.permute(0, 2, 3, 1).flatten(1, 2) for each in maps]
    return torch.cat(rows, dim=1).flatten(0, 1)


class _FoldedRepeat(nn.Module):
    """A repeated layer: a depthwise convolution for all levels, one per level, an activation.

    A level's own convolution contains the level's BatchNorm.
    """

    def __init__(self, conv: Any, norms: list[nn.BatchNorm2d], act: nn.Module) -> None:
        super().__init__()
        separable = isinstance(conv, SeparableConv2d)
        self.conv_dw = conv.conv_dw if separable else nn.Identity()
        self.level = nn.ModuleList(fuse_conv_bn_eval(last_conv(conv), norm) for norm in norms)
        self.act = act

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        maps: list[Tensor] = []
        for index, conv in enumerate(self.level):
            maps.append(self.act(conv(self.conv_dw(x[index]))))
        return maps
