"""Measure BatchNorm statistics anew and freeze them.

With small batches the statistics of every layer vary much from batch to batch. Running statistics
average each layer by itself, as if the layers varied independently. Over a hundred layers the
errors multiply: after 3,000 steps with a batch of 4, the class loss was 0.2 in training mode and
100 in evaluation mode. With the statistics of one large batch that passes through all layers
together, the class loss in evaluation mode was 0.23. These statistics are measured when a phase of
the training begins. They are frozen in layers with few cells (the coarse levels), and towards the
end of the training in all layers.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Frozen = Literal["none", "coarse", "all"]
COARSE_CELLS = 64
"""Feature maps with fewer cells than this count as coarse: P6 and P7 at 256 pixels."""


def _layers(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def layers_to_freeze(model: nn.Module, frozen: Frozen, size: int) -> list[nn.BatchNorm2d]:
    """Return the BatchNorm layers that ``frozen`` names, for pictures of ``size`` pixels."""
    if frozen == "none":
        return []
    if frozen == "all":
        return _layers(model)
    coarse: list[nn.BatchNorm2d] = []

    def note(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        if inputs[0].shape[-2:].numel() < COARSE_CELLS and isinstance(layer, nn.BatchNorm2d):
            coarse.append(layer)

    hooks = [layer.register_forward_pre_hook(note) for layer in _layers(model)]
    was_training = model.training
    model.eval()(torch.zeros(1, 3, size, size))
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return coarse


@torch.no_grad()
def measure_statistics(model: nn.Module, images: Tensor) -> None:
    """Set the running statistics of every layer to those of one large normalized batch."""
    layers = _layers(model)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 1.0
    model.train()
    model(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
