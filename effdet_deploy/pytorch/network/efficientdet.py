"""EfficientDet: backbone, pyramid and two heads, and how a model is created."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from effdet_deploy.pytorch.network.backbone import create_backbone
from effdet_deploy.pytorch.network.blocks import ConvBnAct2d, SeparableConv2d, last_conv
from effdet_deploy.pytorch.network.head import HeadNet
from effdet_deploy.pytorch.network.pyramid import BiFpn
from effdet_deploy.pytorch.network.registry import get_config

if TYPE_CHECKING:
    from effdet_deploy.pytorch.network.config import ModelConfig

_PRIOR = 0.01
"""The score of every class before training (focal loss, arXiv:1708.02002, section 3.3)."""


class EfficientDet(nn.Module):
    """A detector without its pre- and post-processing.

    Raises:
        UnknownNameError: timm has no backbone with the configured name.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        backbone = create_backbone(config)
        self.backbone = backbone
        self.fpn = BiFpn(config, backbone.feature_info.channels())
        self.class_net = HeadNet(config, config.num_classes)
        self.box_net = HeadNet(config, 4)
        for part in (self.fpn, self.class_net, self.box_net):
            _initialize(part, is_head=part is not self.fpn)
        bias: Any = last_conv(self.class_net.predict).bias
        nn.init.constant_(bias, -math.log((1 - _PRIOR) / _PRIOR))

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Map normalized images ``[N,3,H,W]`` to class logits and box codes of every level.

        A level gives ``[N,A·classes,h,w]`` and ``[N,A·4,h,w]``, fine to coarse, with the anchor as
        the slower index and codes in the order ty, tx, th, tw.
        """
        maps = self.fpn(self.backbone(x))
        return self.class_net(maps), self.box_net(maps)


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    **overrides: Any,
) -> EfficientDet:
    """Create a model with newly initialized weights.

    Args:
        name: a full name of :func:`list_models`, or a short one such as ``d2``.
        num_classes: number of classes without background; default 90.
        image_size: (height, width) in pixels, or one number for a square; default: the variant's.
        overrides: any other field of :class:`ModelConfig`.

    Raises:
        UnknownNameError: a variant or field is unknown; the message names the nearest ones.
        UsageError: a value is out of its range.
    """
    chosen = {"num_classes": num_classes, "image_size": image_size}
    overrides |= {field: value for field, value in chosen.items() if value is not None}
    return EfficientDet(get_config(name).replace(overrides))


def _initialize(part: nn.Module, *, is_head: bool) -> None:
    """Initialize as the TensorFlow implementation does: Glorot, or scaled by fan-in in heads."""
    for module in part.modules():
        if not isinstance(module, SeparableConv2d | ConvBnAct2d):
            continue
        for conv in (each for each in module.children() if isinstance(each, nn.Conv2d)):
            area = math.prod(conv.kernel_size)
            fan_in = conv.weight.shape[1] * area
            fan_out = conv.weight.shape[0] * area // conv.groups
            if is_head:
                separable = isinstance(module, SeparableConv2d)
                std = math.sqrt(1 / max(1.0, fan_in)) if separable else 0.01
                nn.init.normal_(conv.weight, std=std)
            else:
                limit = math.sqrt(3 / max(1.0, (fan_in + fan_out) / 2))
                nn.init.uniform_(conv.weight, -limit, limit)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
