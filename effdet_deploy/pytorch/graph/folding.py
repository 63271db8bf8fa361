"""Folding what is constant at inference into weights, on a copy of the network.

BatchNorms go into the convolutions before them, fusion weights become constants, and input scale
and channel order go into the stem. The result computes the same function with fewer nodes.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from effdet_deploy.pytorch.graph.folded_heads import FoldedHead
from effdet_deploy.pytorch.network.blocks import FpnCombine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effdet_deploy.artifact.spec import InputSpec
    from effdet_deploy.pytorch.network.efficientdet import EfficientDet


_HEADS = ("class_net.", "box_net.")


def fold_for_inference(network: EfficientDet, spec: InputSpec) -> FoldedNetwork:
    """Return a folded copy of ``network`` for graph inputs as ``spec`` describes them.

    The copy takes what :class:`effdet_deploy.pytorch.graph.preprocess.Preprocess` gives.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    with torch.no_grad():
        fold_batch_norms(folded)
        for module in folded.modules():
            if isinstance(module, FpnCombine):
                module.freeze()
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
    for conv_name, norm_name in _conv_norm_pairs(network):
        if conv_name.startswith(_HEADS):
            continue  # A head's convolution has a BatchNorm for every level: see FoldedHead.
        conv: Any = network.get_submodule(conv_name)
        norm: Any = network.get_submodule(norm_name)
        _replace(network, conv_name, fuse_conv_bn_eval(conv, norm))
        _replace(network, norm_name, _after_norm(norm))


def _conv_norm_pairs(network: EfficientDet) -> list[tuple[str, str]]:
    """Find which BatchNorm belongs to which convolution, by running the network.

    A BatchNorm whose input is the very tensor that a convolution returned belongs to it. The run
    is on the meta device, where tensors have shapes and no numbers, and takes no time.
    """
    twin = copy.deepcopy(network).to("meta")
    names = {module: name for name, module in twin.named_modules()}
    produced: dict[int, tuple[str, Tensor]] = {}
    pairs: list[tuple[str, str]] = []

    def remember(conv: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # The tensor is kept so that its id cannot be given to another one.
        produced[id(output)] = (names[conv], output)

    def pair(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in produced:
            pairs.append((produced[id(inputs[0])][0], names[norm]))

    for module in names:
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(remember)
        elif isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(pair)
    dtype = next(twin.parameters()).dtype
    twin(torch.empty(1, 3, *network.config.image_size, device="meta", dtype=dtype))
    return pairs


def _after_norm(norm: nn.Module) -> nn.Module:
    """What is left of a norm layer: timm's ``BatchNormAct2d`` carries an activation."""
    act = getattr(norm, "act", None)
    return act if isinstance(act, nn.Module) else nn.Identity()


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, module)


def fold_input(backbone: nn.Module, spec: InputSpec) -> None:
    """Fold 1/std and the channel order into the first convolution, in place.

    ``normalized`` input is already divided; only its channel order is folded.
    """
    stem = next(_convolutions(backbone))
    weight = stem.weight.data
    if spec.kind != "normalized":
        weight = weight / (255 * torch.tensor(spec.std)).view(1, 3, 1, 1)
    if spec.channel_order == "bgr":
        weight = weight.flip(1)
    stem.weight.data = weight


def _convolutions(module: nn.Module) -> Iterator[nn.Conv2d]:
    return (each for each in module.modules() if isinstance(each, nn.Conv2d))
