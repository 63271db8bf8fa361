"""Non-maximum suppression in plain static-shape operators, and as ONNX's own operator.

Greedy NMS keeps a box unless a kept box of its class with a better score overlaps it by more than
the threshold. With M[j,i] = 1 where j may suppress i, it is the fixed point of
``keep = (keep @ M == 0)``. Starting from all ones, each step settles one more link of every
suppression chain, so n steps are exact for chains of at most n + 1 boxes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

BLOCK_ROWS = 250
"""Rows of M that are computed at once. A CPU spends its time fetching and storing matrices: blocks
leave out what lies below the diagonal and stay in its cache; four of them do for 1000 boxes."""


def suppression_matrix(
    boxes: Tensor, classes: Tensor, iou_threshold: float, block_rows: int = BLOCK_ROWS
) -> Tensor:
    """Return M ``[N,K,K]`` float32: 1 where box j (row) may suppress the later box i (column).

    Args:
        boxes: ``[N,K,4]``, either corner order, best score first.
        classes: ``[N,K]`` class of each box.
        iou_threshold: overlaps above it suppress.
        block_rows: see :data:`BLOCK_ROWS`.
    """
    count = boxes.shape[1]
    size = torch.relu(boxes[..., 2:] - boxes[..., :2])
    # Classes are whole numbers far below 2^24, and floats compare faster than int64.
    columns = torch.cat(
        [boxes, size[..., :1] * size[..., 1:], classes.to(boxes.dtype).unsqueeze(2)], dim=2
    ).transpose(1, 2)
    blocks = [
        F.pad(
            _suppressed_after(columns[..., start:], min(block_rows, count - start), iou_threshold),
            (start, 0),
        )
        for start in range(0, count, block_rows)
    ]
    return torch.cat(blocks, dim=1)


def _suppressed_after(columns: Tensor, rows: int, iou_threshold: float) -> Tensor:
    """Return ``[N,rows,n]``: which of n boxes each of the first ``rows`` may suppress.

    ``columns`` ``[N,6,n]`` are two low and two high coordinates, area and class.
    """
    first, second, first_end, second_end, area, classes = columns.unbind(1)
    width = torch.relu(_overlap(first, first_end, rows))
    # A negative height times a width is negative and suppresses nothing: one relu is enough.
    inter = width * _overlap(second, second_end, rows)
    # IoU > t, without the union: it is what the areas sum up to, less the intersection.
    scaled = inter * ((1 + iou_threshold) / iou_threshold)
    suppresses = scaled > area[:, :rows].unsqueeze(2) + area.unsqueeze(1)
    same_class = classes[:, :rows].unsqueeze(2) == classes.unsqueeze(1)
    later = torch.ones(rows, columns.shape[2], dtype=torch.bool, device=columns.device).triu(1)
    return (suppresses & same_class & later).to(columns.dtype)


def _overlap(low: Tensor, high: Tensor, rows: int) -> Tensor:
    """Return the overlap ``[N,rows,n]`` of the first ``rows`` of n intervals with all of them.

    It is negative where they do not touch.
    """
    end = torch.minimum(high[:, :rows].unsqueeze(2), high.unsqueeze(1))
    start = torch.maximum(low[:, :rows].unsqueeze(2), low.unsqueeze(1))
    return end - start


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
        keep = torch.ones_like(scores).unsqueeze(1)
        for _ in range(self.steps):
            # Counts of kept suppressors are whole numbers: this is 1 where none is left.
            keep = torch.relu(1 - keep @ matrix)
        return keep.squeeze(1)


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
