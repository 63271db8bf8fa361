"""The building blocks: convolutions with norm and activation, resampling, weighted fusion.

Attribute names are those of effdet, because the ``state_dict`` is built from them. Everything
here runs eagerly and under ``torch.jit.script`` and ``torch.jit.trace``; TorchScript reads class
annotations as objects, hence no ``from __future__ import annotations`` in this file.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Optional, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from timm.layers import create_conv2d, create_pool2d, get_act_layer
from torch import Tensor, nn

from effdet_deploy.pytorch.network.config import ModelConfig
from effdet_deploy.pytorch.network.topology import UNWEIGHTED

LayerFactory: TypeAlias = Callable[..., nn.Module]

_BELOW_ANY_FEATURE = -6e4
"""A value that float16 can still hold, and that is below all values of feature maps."""
FAST_FUSION_EPS = 1e-4
"""Keeps fast normalized fusion finite if all weights are zero (EfficientDet, section 3.3)."""


def norm_factory(config: ModelConfig) -> LayerFactory:
    """Return a function that makes the BatchNorms of pyramid and heads."""
    return partial(nn.BatchNorm2d, eps=config.norm_eps, momentum=config.norm_momentum)


def activation(name: str, *, inplace: bool) -> nn.Module:
    """Make an activation by its name in timm, such as ``swish`` or ``relu6``."""
    layer: nn.Module = get_act_layer(name)(inplace=inplace)
    return layer


class ConvBnAct2d(nn.Module):
    """A convolution with an optional BatchNorm."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        pad_type: str,
        bias: bool,
        norm: LayerFactory | None,
    ) -> None:
        super().__init__()
        self.conv = create_conv2d(
            in_channels, out_channels, kernel_size, padding=pad_type, bias=bias
        )
        self.bn = nn.Identity() if norm is None else norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N,Cin,H,W]`` to ``[N,Cout,H,W]``."""
        return self.bn(self.conv(x))


class SeparableConv2d(nn.Module):
    """A depthwise and a pointwise convolution with an optional BatchNorm."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        pad_type: str,
        bias: bool,
        norm: LayerFactory | None,
    ) -> None:
        super().__init__()
        self.conv_dw = create_conv2d(
            in_channels, in_channels, kernel_size, padding=pad_type, depthwise=True
        )
        self.conv_pw = create_conv2d(in_channels, out_channels, 1, padding=pad_type, bias=bias)
        self.bn = nn.Identity() if norm is None else norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N,Cin,H,W]`` to ``[N,Cout,H,W]``."""
        return self.bn(self.conv_pw(self.conv_dw(x)))


def last_conv(layer: Any) -> nn.Conv2d:
    """Return the convolution that makes the outputs of a SeparableConv2d or a ConvBnAct2d."""
    return layer.conv_pw if isinstance(layer, SeparableConv2d) else layer.conv


class Interpolate2d(nn.Module):
    """Resampling to a size fixed at construction.

    If the ratio or its inverse is a whole number, the ratio is stored instead: an exported graph
    then has one Resize with constant scales and computes no shapes.
    """

    # TorchScript reads these annotations and knows Optional only by that name.
    size: Optional[list[int]]  # noqa: UP045
    scale: Optional[list[float]]  # noqa: UP045
    align_corners: Optional[bool]  # noqa: UP045

    def __init__(self, input_size: tuple[int, int], size: tuple[int, int], mode: str) -> None:
        super().__init__()
        sides = list(zip(input_size, size, strict=True))
        exact = all(max(pair) % min(pair) == 0 for pair in sides)
        ratio = [out / into for into, out in sides]
        self.size = None if exact else list(size)
        self.scale = ratio if exact else None
        self.mode = mode
        self.align_corners = None if mode == "nearest" else False

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N,C,H,W]`` to ``[N,C,*size]``."""
        return F.interpolate(
            x, self.size, self.scale, self.mode, self.align_corners, recompute_scale_factor=False
        )


class ResampleFeatureMap(nn.Sequential):
    """Changes a feature map to the channels and the size of another level.

    It has ``conv`` if channels differ, and then ``downsample`` or ``upsample`` if sizes differ.
    """

    def __init__(
        self,
        config: ModelConfig,
        in_channels: int,
        input_size: tuple[int, int],
        output_size: tuple[int, int],
    ) -> None:
        super().__init__()
        if in_channels != config.fpn_channels:
            norm = norm_factory(config) if config.apply_resample_bn else None
            bias = norm is None or config.redundant_bias
            self.add_module(
                "conv",
                ConvBnAct2d(
                    in_channels,
                    config.fpn_channels,
                    1,
                    pad_type=config.pad_type,
                    bias=bias,
                    norm=norm,
                ),
            )
        if input_size[0] > output_size[0] and input_size[1] > output_size[1]:
            self.add_module("downsample", _downsample(config, input_size, output_size))
        elif input_size != output_size:
            self.add_module(
                "upsample", Interpolate2d(input_size, output_size, config.upsample_type)
            )


def _downsample(
    config: ModelConfig, input_size: tuple[int, int], output_size: tuple[int, int]
) -> nn.Module:
    if config.downsample_type not in ("max", "avg"):
        return Interpolate2d(input_size, output_size, config.downsample_type)
    sides = list(zip(input_size, output_size, strict=True))
    stride = tuple((into - 1) // out + 1 for into, out in sides)
    if config.downsample_type == "max" and config.pad_type == "same":
        # SAME padding, without the Pad node that timm's layer exports. ``padding`` gives the rows
        # at the beginning; ceil_mode gives the rows at the end, of which there are as many or more.
        padding = tuple(
            (out * step - into + 1) // 2 for (into, out), step in zip(sides, stride, strict=True)
        )
        # A window has at most the size of the map: OpenVINO refuses windows with a row of only
        # padding.
        kernel_size = tuple(
            min(step + 1, into) for (into, _), step in zip(sides, stride, strict=True)
        )
        pooled = nn.MaxPool2d(kernel_size, stride, padding=padding, ceil_mode=True)
        if config.pool_padding == "lowest":
            return pooled
        return ZeroPaddedPool(pooled, output_size, padding)
    pool: nn.Module = create_pool2d(
        config.downsample_type, kernel_size=stride[0] + 1, stride=stride[0], padding=config.pad_type
    )
    return pool


class ZeroPaddedPool(nn.Module):
    """A max pooling whose SAME padding is zeros, as in zylo117's project.

    The zeros are not added as padding; instead, the result of a window that reaches over a border
    is raised to at least 0. ONNX Runtime 1.31 would merge a Pad of zeros into the pooling, whose
    padding counts as minus infinity, and so compute other values.
    """

    border: Tensor

    def __init__(
        self, pool: nn.Module, output_size: tuple[int, int], padding: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.pool = pool
        border = torch.full((1, 1, *output_size), _BELOW_ANY_FEATURE)
        # Both axes are padded at the end, and an axis with ``padding`` at the beginning too.
        border[:, :, -1] = border[:, :, :, -1] = 0
        if padding[0]:
            border[:, :, 0] = 0
        if padding[1]:
            border[:, :, :, 0] = 0
        self.register_buffer("border", border, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N,C,H,W]`` to ``[N,C,*output_size]``."""
        return torch.maximum(self.pool(x), self.border)


class FpnCombine(nn.Module):
    """Joins feature maps of several levels at one level, with one weight per map.

    The fusions are those of EfficientDet, section 3.3: ``fastattn`` (fast normalized),
    ``attn`` (softmax), ``unbounded`` (unnormalized weights) and ``sum`` (no weights). ``pooled`` is
    NAS-FPN's attention: the first input, pooled over the map to one number per channel, gates the
    second; further inputs are added.
    """

    edge_weights: Optional[Tensor]  # noqa: UP045 - as TorchScript reads it

    def __init__(
        self,
        config: ModelConfig,
        channels: list[int],
        sizes: list[tuple[int, int]],
        inputs: tuple[int, ...],
        output_size: tuple[int, int],
        fusion: str,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.fusion = fusion
        self.eps = FAST_FUSION_EPS
        self.resample = nn.ModuleDict(
            {
                str(index): ResampleFeatureMap(config, channels[index], sizes[index], output_size)
                for index in inputs
            }
        )
        weighted = fusion not in UNWEIGHTED
        initial = nn.Parameter(torch.ones(len(inputs))) if weighted else None
        self.register_parameter("edge_weights", initial)
        self.frozen_weights: list[float] = [1.0] * len(inputs)

    def fusion_weights(self) -> list[float]:
        """Return the weights of the inputs as they are applied, in order."""
        if self.edge_weights is None:
            return list(self.frozen_weights)
        return self._weights().tolist()

    def freeze(self) -> None:
        """Turn the weights into constants for export; they are not parameters afterwards."""
        self.frozen_weights = self.fusion_weights()
        self.edge_weights = None

    def _weights(self) -> Tensor:
        weights = self.edge_weights
        if weights is None:
            return torch.ones(len(self.inputs))
        if self.fusion == "attn":
            return torch.softmax(weights, dim=0)
        if self.fusion == "fastattn":
            weights = F.relu(weights)
            return weights / (weights.sum() + self.eps)
        return weights

    def forward(self, x: list[Tensor]) -> Tensor:
        """Join some of the feature maps ``x``, which are ``[N,Ci,Hi,Wi]``, into ``[N,C,H,W]``."""
        nodes: list[Tensor] = []
        for index, resample in zip(self.inputs, self.resample.values()):  # noqa: B905 - TorchScript's zip has no strict
            nodes.append(resample(x[index]))
        if self.fusion == "pooled":
            gate = nodes[0].amax(dim=[2, 3], keepdim=True).sigmoid()
            nodes[1] = nodes[1] * gate
        if self.edge_weights is None:
            total = _scaled(nodes[0], self.frozen_weights[0])
            for i in range(1, len(nodes)):
                total = total + _scaled(nodes[i], self.frozen_weights[i])
            return total
        weights = self._weights().to(nodes[0].dtype)
        total = nodes[0] * weights[0]
        for i in range(1, len(nodes)):
            total = total + nodes[i] * weights[i]
        return total


def _scaled(x: Tensor, weight: float) -> Tensor:
    return x if weight == 1.0 else x * weight
