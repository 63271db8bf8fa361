"""Anchor boxes, in the order of the network's outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from effdet_deploy.anchors import anchor_boxes

if TYPE_CHECKING:
    from torch import Tensor

    from effdet_deploy.spec import AnchorSpec


def anchor_centres(spec: AnchorSpec, height: int, width: int) -> Tensor:
    """Return anchors ``[A,4]`` float32 as (y, x, h, w): centre and size in network pixels."""
    boxes = torch.tensor(anchor_boxes(spec, height, width))
    low, high = boxes[:, :2], boxes[:, 2:]
    return torch.cat([(low + high) / 2, high - low], dim=1)
