"""Folding of constant operations into weights, on a copy of the network, for inference.

BatchNorms go into the convolutions before them, fusion weights become constants, and input scale
and channel order go into the first convolution. The result computes the same function with fewer
nodes.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from effdet_deploy.pytorch.graph.folded_heads import FoldedHead
from effdet_deploy.pytorch.network.blocks import FpnCombine, last_conv
from effdet_deploy.pytorch.network.calls import calls_of
from effdet_deploy.pytorch.network.pyramid import absorbed_weights

if TYPE_CHECKING:
    from effdet_deploy.artifact.spec import InputSpec
    from effdet_deploy.pytorch.network.efficientdet import EfficientDet
    from effdet_deploy.pytorch.network.pyramid import BiFpn

_HEADS = ("class_net.", "box_net.")


def fold_for_inference(network: EfficientDet, spec: InputSpec) -> FoldedNetwork:
    """Return a folded copy of ``network`` for graph inputs that ``spec`` describes.

    The copy takes the output of :class:`effdet_deploy.pytorch.graph.preprocess.Preprocess`.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    with torch.no_grad():
        fold_batch_norms(folded)
        fold_fusion_weights(folded.fpn)
        fold_input(folded.backbone, spec)
        return FoldedNetwork(folded)


class FoldedNetwork(nn.Module):
    """A network without BatchNorms, whose heads give one table for all levels."""

    def __init__(self, network: EfficientDet) -> None:
        super().__init__()
        self.backbone = network.backbone
        self.fpn = network.fpn
        self.class_net = FoldedHead(network.class_net)
        self.box_net = FoldedHead(network.box_net)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images to ``[N·positions,anchors·classes]`` and ``[N·positions,anchors·4]``."""
        maps = self.fpn(self.backbone(x))
        return self.class_net(maps), self.box_net(maps)


def fold_batch_norms(network: EfficientDet) -> None:
    """Fold every BatchNorm of backbone and pyramid that follows a convolution, in place."""
    for call in calls_of(network):
        # A head's convolution has one BatchNorm per level, which FoldedHead folds.
        if call.conv is None or call.conv.module.startswith(_HEADS):
            continue
        conv: Any = network.get_submodule(call.conv.module)
        norm: Any = network.get_submodule(call.spot.module)
        # timm's BatchNormAct2d contains an activation, which stays.
        act = getattr(norm, "act", None)
        network.set_submodule(call.conv.module, fuse_conv_bn_eval(conv, norm))
        network.set_submodule(
            call.spot.module, act if isinstance(act, nn.Module) else nn.Identity()
        )


def fold_fusion_weights(pyramid: BiFpn) -> None:
    """Turn fusion weights into constants, and fold them into convolutions if possible, in place.

    A simplifier would fold these weights too, but it would not record which layers contain them.
    """
    for module in pyramid.modules():
        if isinstance(module, FpnCombine):
            module.freeze()
    for name, (combine, position) in absorbed_weights(pyramid).items():
        layer: Any = pyramid.get_submodule(name)
        if isinstance(layer.bn, nn.Identity):
            conv: Any = last_conv(layer)
            conv.weight.mul_(combine.frozen_weights[position])
            conv.bias.mul_(combine.frozen_weights[position])
            combine.frozen_weights[position] = 1.0


def fold_input(backbone: nn.Module, spec: InputSpec) -> None:
    """Fold 1/std, and the channel orders of input and training, into the first convolution.

    The backbone is changed in place. ``normalized`` input is already divided by std, so only the
    channel orders are folded.
    """
    stem = next(each for each in backbone.modules() if isinstance(each, nn.Conv2d))
    weight = stem.weight.data[:, spec.trained_channels]
    if spec.kind != "normalized":
        weight = weight / (255 * torch.tensor(spec.std)).view(1, -1, 1, 1)
    stem.weight.data = weight[:, spec.passed_channels]
