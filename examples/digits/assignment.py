"""Match anchors to ground truth and encode the regression targets, as effdet's training bench does.

Every anchor is matched with the box that it overlaps most, if their IoU is at least the threshold.
Then every box is matched with its own best anchor, so that every box has at least one anchor. Boxes
and anchors are y1, x1, y2, x2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MATCH_THRESHOLD = 0.5
BACKGROUND = -1
_SIZE_EPSILON = 1e-7


@dataclass(frozen=True)
class Targets:
    """The targets of the heads for a batch.

    ``classes`` int64 ``[N, A]``, 0-based with -1 for background; ``codes`` float32 ``[N, A, 4]``
    as ty, tx, th, tw, zero for background; ``positives`` float32 ``[N]``, matched anchors.
    """

    classes: Tensor
    codes: Tensor
    positives: Tensor


def pairwise_iou(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return the IoU ``[N, M, A]`` of boxes ``[N, M, 4]`` with anchors ``[A, 4]``."""
    box_y1, box_x1, box_y2, box_x2 = boxes.unsqueeze(2).unbind(-1)
    y1, x1, y2, x2 = anchors.unbind(-1)
    heights = (torch.minimum(box_y2, y2) - torch.maximum(box_y1, y1)).clamp_(min=0)
    widths = (torch.minimum(box_x2, x2) - torch.maximum(box_x1, x1)).clamp_(min=0)
    shared = heights * widths
    union = (box_y2 - box_y1) * (box_x2 - box_x1) + (y2 - y1) * (x2 - x1) - shared
    return torch.where(shared == 0, 0.0, shared / union)


def match_anchors(iou: Tensor, valid: Tensor, threshold: float = MATCH_THRESHOLD) -> Tensor:
    """Return for each anchor ``[N, A]`` the row of its box, or -1.

    ``iou`` is ``[N, M, A]`` and ``valid`` bool ``[N, M]`` (rows that are padding are False).
    """
    iou = iou.masked_fill(~valid.unsqueeze(-1), -1.0)
    best, matches = iou.max(dim=1)
    matches = matches.masked_fill(best < threshold, BACKGROUND)
    best_anchor = iou.argmax(dim=2)
    claimed = torch.zeros_like(iou, dtype=torch.bool)
    claimed.scatter_(2, best_anchor.unsqueeze(-1), valid.unsqueeze(-1))
    is_claimed, claimant = claimed.max(dim=1)
    return torch.where(is_claimed, claimant, matches)


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return ty, tx, th, tw ``[N, A, 4]`` of boxes ``[N, A, 4]`` relative to anchors ``[A, 4]``."""
    anchor_size = anchors[:, 2:] - anchors[:, :2]
    box_size = boxes[..., 2:] - boxes[..., :2]
    shift = (boxes[..., :2] + box_size / 2) - (anchors[:, :2] + anchor_size / 2)
    anchor_size = anchor_size + _SIZE_EPSILON
    scale = torch.log((box_size + _SIZE_EPSILON) / anchor_size)
    return torch.cat([shift / anchor_size, scale], dim=-1)


def assign(anchors: Tensor, boxes: Tensor, labels: Tensor) -> Targets:
    """Return the targets of a padded batch: boxes ``[N, M, 4]``, labels ``[N, M]`` (-1: no box)."""
    valid = labels >= 0
    matches = match_anchors(pairwise_iou(boxes, anchors), valid)
    positive = matches >= 0
    rows = matches.clamp(min=0)
    matched = boxes.gather(1, rows.unsqueeze(-1).expand(-1, -1, 4))
    codes = encode_boxes(matched, anchors)
    return Targets(
        classes=torch.where(positive, labels.gather(1, rows), BACKGROUND),
        codes=torch.where(positive.unsqueeze(-1), codes, 0.0),
        positives=positive.sum(dim=1).float(),
    )
