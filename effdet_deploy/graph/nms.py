"""Non-maximum suppression in plain static-shape operators, and as ONNX's own operator.

Greedy NMS keeps a box unless a kept box of its class with a better score overlaps it by more than
the threshold. With M[i,j] = 1 where j may suppress i, it is the fixed point of
``keep = (M @ keep == 0)``. Starting from all ones, each step settles one more link of every
suppression chain, so n steps are exact for chains of at most n + 1 boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def suppression_matrix(boxes: Tensor, classes: Tensor, iou_threshold: float) -> Tensor:
    """Return M ``[N,K,K]`` float32: 1 where box j may suppress the later box i.

    Args:
        boxes: ``[N,K,4]``, either corner order, best score first.
        classes: ``[N,K]`` class of each box.
        iou_threshold: overlaps above it suppress.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    size = torch.relu(high - low)
    area = size[..., 0] * size[..., 1]
    inter = _overlap(low[..., 0], high[..., 0]) * _overlap(low[..., 1], high[..., 1])
    union = area.unsqueeze(2) + area.unsqueeze(1) - inter
    suppresses = (inter > iou_threshold * union) & (classes.unsqueeze(2) == classes.unsqueeze(1))
    count = boxes.shape[1]
    earlier = torch.ones(count, count, dtype=torch.bool, device=boxes.device).tril(-1)
    return (suppresses & earlier).to(torch.float32)


def _overlap(low: Tensor, high: Tensor) -> Tensor:
    """Return the overlap ``[N,K,K]`` of intervals ``[N,K]`` along one axis."""
    end = torch.minimum(high.unsqueeze(2), high.unsqueeze(1))
    start = torch.maximum(low.unsqueeze(2), low.unsqueeze(1))
    return torch.relu(end - start)


class StaticNms(nn.Module):
    """Greedy NMS by a fixed number of steps; see the module's text for its limit."""

    def __init__(self, iou_threshold: float, steps: int) -> None:
        super().__init__()
        self.iou_threshold = iou_threshold
        self.steps = steps

    def forward(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> Tensor:
        """Map boxes ``[N,K,4]``, scores and classes ``[N,K]``, best first, to keep ``[N,K]``.

        Keep is float32: 1 for a box that stays, 0 for one that is suppressed.
        """
        matrix = suppression_matrix(boxes, classes, self.iou_threshold)
        keep = torch.ones_like(scores).unsqueeze(2)
        for _ in range(self.steps):
            # Counts of kept suppressors are whole numbers: this is 1 where none is left.
            keep = torch.relu(1 - matrix @ keep)
        return keep.squeeze(2)


class OnnxNms(nn.Module):
    """The operator ``NonMaxSuppression``: exact for any chain, in runtimes that have it."""

    def __init__(self, iou_threshold: float, num_classes: int) -> None:
        super().__init__()
        self.iou_threshold = iou_threshold
        self.num_classes = num_classes

    def forward(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> Tensor:
        """Map as :meth:`StaticNms.forward` does; only an exporter can run it."""
        count = scores.shape[1]
        labels = torch.arange(self.num_classes, device=classes.device).view(1, -1, 1)
        # One row of scores a class; -1 keeps a box out of every class but its own.
        per_class = torch.where(classes.unsqueeze(1) == labels, scores.unsqueeze(1), -1.0)
        selected = torch.onnx.ops.symbolic(
            "NonMaxSuppression",
            (
                boxes,
                per_class,
                torch.tensor([count]),
                torch.tensor([self.iou_threshold]),
                torch.tensor([0.0]),
            ),
            dtype=torch.int64,
            shape=(count, 3),
            version=11,
        )
        positions = selected[:, 0] * count + selected[:, 2]
        keep = torch.zeros_like(scores).flatten()
        # Computed, not a constant: at run time there are fewer rows than the tracer was told.
        kept = (positions >= 0).to(scores.dtype)
        return keep.scatter(0, positions, kept).view_as(scores)
