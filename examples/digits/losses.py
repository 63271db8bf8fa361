"""Focal loss for the classes and Huber loss for the boxes (EfficientDet, section 5.1).

Both losses are normalized by the number of matched anchors in the batch, with the constants of
effdet's training bench.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as functional
from torch import Tensor

if TYPE_CHECKING:
    from assignment import Targets

FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 1.5
HUBER_DELTA = 0.1
BOX_LOSS_WEIGHT = 50.0


def flatten_heads(outputs: list[Tensor], values: int) -> Tensor:
    """Join per-level outputs ``[N, 9 * values, H, W]`` into ``[N, A, values]`` in anchor order."""
    return torch.cat(
        [level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, values) for level in outputs], dim=1
    )


def focal_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the summed focal loss of logits ``[N, A, C]`` for classes ``[N, A]`` (-1: none).

    If u is the logit of the wrong answer, sigmoid(u) is 1 - p_t and softplus(u) is -log(p_t).
    """
    is_class = classes.unsqueeze(-1) == torch.arange(logits.shape[-1], device=logits.device)
    wrong = torch.where(is_class, -logits, logits)
    alpha = torch.where(is_class, FOCAL_ALPHA, 1.0 - FOCAL_ALPHA)
    return (alpha * wrong.sigmoid().pow(FOCAL_GAMMA) * functional.softplus(wrong)).sum()


def huber_loss(codes: Tensor, targets: Targets) -> Tensor:
    """Return the summed Huber loss of box codes ``[N, A, 4]`` over the matched anchors.

    effdet skips target components that are exactly zero, even on matched anchors, where they mean
    that the box is centered on its anchor. Here they count.
    """
    positive = targets.classes >= 0
    return functional.huber_loss(
        codes[positive], targets.codes[positive], reduction="sum", delta=HUBER_DELTA
    )


def detection_loss(
    class_outputs: list[Tensor], box_outputs: list[Tensor], targets: Targets, num_classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return total, class and box loss of the per-level head outputs of a batch."""
    normalizer = targets.positives.sum() + 1.0
    class_loss = focal_loss(flatten_heads(class_outputs, num_classes), targets.classes) / normalizer
    box_loss = huber_loss(flatten_heads(box_outputs, 4), targets) / (normalizer * 4.0)
    return class_loss + BOX_LOSS_WEIGHT * box_loss, class_loss, box_loss
