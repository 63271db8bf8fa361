"""Non-maximum suppression in static-shape operators, and as ONNX's own operator.

Greedy NMS keeps a box unless a kept box of its class with a better score overlaps it by more than
the threshold. :class:`GreedyNms` decides one box at a time. :class:`StaticNms` works on all K
boxes at once, with a matrix M of K x K numbers: M[j,i] is 1 if box j may suppress box i. The result
is the fixed point of ``keep = (keep @ M == 0)``. A suppression chain is a sequence of boxes in
which every box may suppress the next one. From a start with all ones, every step settles one more
link of every chain, so n steps are exact for chains of at most n + 1 boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CPU_BLOCKS = 4
"""If a CPU runs the graph, boxes are settled in this many groups, best boxes first: a CPU spends
most time on reading and writing M, and groups leave out half of M and keep the rest in the cache.
For a GPU a single group is best, because every step waits for the step before."""
MIN_BLOCK_ROWS = 250
"""The least number of boxes in every group but the last: with smaller groups, a CPU spends most
time between the graph's nodes, not in them."""


def _suppressed_after(columns: Tensor, rows: int, iou_threshold: float) -> Tensor:
    """Return the first ``rows`` rows of M as float32 ``[N,rows,n]``: 1 if j may suppress i."""
    first, second, first_end, second_end, area, classes = columns.unbind(1)
    width = torch.relu(_overlap(first, first_end, rows))
    # A negative height times a width is negative and suppresses no box: one relu is enough.
    inter = width * _overlap(second, second_end, rows)
    # IoU > t without a division: intersection · (1 + t) / t > the sum of both areas.
    scaled = inter * ((1 + iou_threshold) / iou_threshold)
    suppresses = scaled > area[:, :rows].unsqueeze(2) + area.unsqueeze(1)
    same_class = classes[:, :rows].unsqueeze(2) == classes.unsqueeze(1)
    later = torch.ones(rows, columns.shape[2], dtype=torch.bool, device=columns.device).triu(1)
    return (suppresses & same_class & later).to(columns.dtype)


def _overlap(low: Tensor, high: Tensor, rows: int) -> Tensor:
    """Return the overlap ``[N,rows,n]`` of the first ``rows`` of n intervals with all of them.

    The overlap is negative if two intervals do not touch.
    """
    end = torch.minimum(high[:, :rows].unsqueeze(2), high.unsqueeze(1))
    start = torch.maximum(low[:, :rows].unsqueeze(2), low.unsqueeze(1))
    return end - start


class StaticNms(nn.Module):
    """Greedy NMS with a fixed number of steps; the module's docstring says when it is exact.

    Args:
        iou_threshold: a box suppresses others that overlap it by more than this IoU.
        steps: the number of steps for a group of boxes.
        blocks: the largest number of groups; the limit on chains applies within a group.
    """

    def __init__(self, iou_threshold: float, steps: int, blocks: int = CPU_BLOCKS) -> None:
        super().__init__()
        self.iou_threshold = iou_threshold
        self.steps = steps
        self.blocks = blocks
        self.min_rows = MIN_BLOCK_ROWS

    def forward(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> Tensor:
        """Map boxes ``[N,K,4]``, scores and classes ``[N,K]``, best first, to keep ``[N,K]``.

        Keep is float32: 1 for a box that stays, 0 for a suppressed box.
        """
        # Two low and two high coordinates, area and class of every box: [N,6,K].
        columns = with_area_and_class(boxes, classes).transpose(1, 2)
        count = boxes.shape[1]
        rows = max(self.min_rows, -(-count // self.blocks))
        # Boxes that the groups so far have not suppressed.
        left = torch.ones_like(scores).unsqueeze(1)
        kept: list[Tensor] = []
        for start in range(0, count, rows):
            size = min(rows, count - start)
            matrix = _suppressed_after(columns[..., start:], size, self.iou_threshold)
            among = matrix[..., :size]
            free = left[..., :size]
            keep = free
            for _ in range(self.steps):
                # A box has a whole number of kept suppressors, so this is 1 or 0.
                keep = torch.relu(free - keep @ among)
            kept.append(keep)
            left = torch.relu(left - keep @ matrix)[..., size:]
        return torch.cat(kept, dim=2).squeeze(1)


class GreedyNms(nn.Module):
    """Greedy NMS one box at a time: exact for any chain, at a cost of rows x boxes.

    Args:
        iou_threshold: a box suppresses others that overlap it by more than this IoU.
        rows: the largest number of boxes that are kept.
    """

    def __init__(self, iou_threshold: float, rows: int) -> None:
        super().__init__()
        self.iou_threshold = iou_threshold
        self.rows = rows

    def forward(self, boxes: Tensor, alive: Tensor, classes: Tensor) -> Tensor:
        """Map boxes ``[N,K,4]``, best first, ``alive`` and classes ``[N,K]`` to rows ``[N,rows]``.

        ``alive`` is float32 and numbers the boxes: K for the first box, K - 1 for the next and so
        on, but 0 for a box that does not take part. The rows are the numbers of the kept boxes;
        if fewer than ``rows`` are kept, the rest are 0.
        """
        table = with_area_and_class(boxes, classes)
        count = alive.shape[1]
        columns = table.unbind(2)
        kept: list[Tensor] = []
        for _ in range(self.rows):
            number = alive.amax(dim=1, keepdim=True)
            kept.append(number)
            # If no box is left, any row will do: all boxes are suppressed already.
            row = torch.clamp(count - number, max=count - 1).to(torch.int64)
            one = [torch.gather(column, 1, row) for column in columns]
            width = torch.relu(_shared(one[1], one[3], columns[1], columns[3]))
            inter = width * _shared(one[0], one[2], columns[0], columns[2])
            scaled = inter * ((1 + self.iou_threshold) / self.iou_threshold)
            suppressed = (scaled > columns[4] + one[4]) & (columns[5] == one[5])
            # A box without area does not overlap itself, so the kept box is removed by its number.
            alive = torch.where(suppressed | (alive >= number), 0.0, alive)
        return torch.cat(kept, dim=1)


class GreedyNode(nn.Module):
    """Greedy NMS as one node of a traced graph.

    :func:`effdet_deploy.onnxgraph.greedy_nms.expand_greedy` replaces it by operators.
    """

    def __init__(self, nms: GreedyNms) -> None:
        super().__init__()
        self.nms = nms

    def forward(self, boxes: Tensor, alive: Tensor, classes: Tensor) -> Tensor:
        """Map as :meth:`GreedyNms.forward` does; only an exporter can run it."""
        rows = self.nms.rows
        return torch.onnx.ops.symbolic(
            "effdet::GreedyRows",
            (with_area_and_class(boxes, classes), alive),
            attrs={
                "iou_threshold": self.nms.iou_threshold,
                "boxes": alive.shape[1],
                "rows": rows,
            },
            dtype=torch.float32,
            shape=(alive.shape[0], rows),
            version=1,
        )


def with_area_and_class(boxes: Tensor, classes: Tensor) -> Tensor:
    """Return boxes ``[N,K,4]`` with their areas and classes as ``[N,K,6]``."""
    sides = torch.relu(boxes[..., 2:] - boxes[..., :2])
    # Classes are whole numbers far below 2^24, and floats compare faster than int64.
    parts = [boxes, sides[..., :1] * sides[..., 1:], classes.to(boxes.dtype).unsqueeze(2)]
    return torch.cat(parts, dim=2)


def _shared(low: Tensor, high: Tensor, lows: Tensor, highs: Tensor) -> Tensor:
    """Return the overlap ``[N,K]`` of an interval with all others; negative if they are apart."""
    return torch.minimum(highs, high) - torch.maximum(lows, low)


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
        # One row of scores per class; a box has the score -1 in all classes but its own.
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
        # This is not a constant of ones: at run time, ``selected`` has fewer rows than when traced.
        kept = (positions >= 0).to(scores.dtype)
        return keep.scatter(0, positions, kept).view_as(scores)
