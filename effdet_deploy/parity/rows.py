"""Boxes with scores and classes: detections, or the boxes that enter NMS."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.artifact.anchors import anchor_boxes
from effdet_deploy.artifact.spec import DETECTION_OUTPUTS
from effdet_deploy.detection.postprocess import decode_boxes, sigmoid, top_candidates
from effdet_deploy.errors import TensorError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from effdet_deploy.artifact.placement import Placement
    from effdet_deploy.artifact.spec import BoxFormat, DetectorSpec, OutputSpec

_XYXY = {"xyxy": [0, 1, 2, 3], "yxyx": [1, 0, 3, 2]}
_PAIR_ROWS = 512
"""How many rows are compared with all others at once, which limits the memory."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Boxes of one image, best score first.

    Attributes:
        boxes: float64 ``[n,4]`` xyxy in pixels.
        scores: float64 ``[n]``.
        classes: int64 ``[n]``, 0-based.
        limit: the largest possible number of rows: D for detections, K for NMS inputs; 0 if there
            is no limit.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    classes: NDArray[np.int64]
    limit: int = 0

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def last_score(self) -> float | None:
        """The score of the last row if there are ``limit`` rows, or None if there are fewer."""
        full = 0 < self.limit <= len(self)
        return float(self.scores.min()) if full else None

    @property
    def non_finite(self) -> int:
        """How many rows hold a NaN or infinity."""
        finite = np.isfinite(self.boxes).all(axis=1) & np.isfinite(self.scores)
        return int(np.count_nonzero(~finite))

    def take(self, rows: NDArray[Any] | list[int]) -> Rows:
        """Select rows by an index or a mask; the result has no limit."""
        return Rows(self.boxes[rows], self.scores[rows], self.classes[rows])

    def above(self, floor: float) -> Rows:
        """Remove the rows with scores below ``floor``."""
        # NaN is not below the floor, so rows with NaN scores stay and are reported.
        kept = ~(self.scores < floor)
        # Removed rows leave free places, and then the result has no last score.
        return replace(self.take(kept), limit=self.limit)

    def as_nms_sees_them(self, output: OutputSpec) -> Rows:
        """Return the rows with one class for all of them if the NMS is class-agnostic."""
        return replace(self, classes=self.classes * 0) if output.class_agnostic else self

    def in_picture(self, placed: Placement) -> Rows:
        """Map rows from network pixels to the picture's pixels, without clipping."""
        return replace(self, boxes=placed.to_image(self.boxes))


def make_rows(
    boxes: NDArray[Any], scores: NDArray[Any], classes: NDArray[Any], limit: int = 0
) -> Rows:
    """Make rows from any numeric arrays: xyxy ``[n,4]``, ``[n]``, ``[n]``."""
    return Rows(
        np.asarray(boxes, dtype=np.float64).reshape(-1, 4),
        np.asarray(scores, dtype=np.float64),
        np.asarray(classes, dtype=np.int64),
        limit,
    )


def join_rows(first: Rows, second: Rows) -> Rows:
    """Merge two sets of rows, best score first; the result has no limit."""
    joined = make_rows(
        np.concatenate([first.boxes, second.boxes]),
        np.concatenate([first.scores, second.scores]),
        np.concatenate([first.classes, second.classes]),
    )
    return joined.take(np.argsort(-joined.scores, kind="stable"))


def rows_from_outputs(outputs: Mapping[str, NDArray[Any]], box_format: BoxFormat) -> list[Rows]:
    """Read the four detection outputs of a batch and return one :class:`Rows` per image.

    Raises:
        TensorError: an image states fewer than 0 or more than D detections.
    """
    counts, boxes, scores, classes = (outputs[name] for name in DETECTION_OUTPUTS)
    depth = scores.shape[1]
    images = []
    for image, count in enumerate(np.asarray(counts).reshape(-1).tolist()):
        if not 0 <= count <= depth:
            raise TensorError(
                f"num_detections of image {image} is {count}, but the outputs have {depth} rows.",
                "Export the model again with effdet-export.",
            )
        corners = boxes[image, :count][:, _XYXY[box_format]]
        images.append(make_rows(corners, scores[image, :count], classes[image, :count], depth))
    return images


def nms_inputs(
    class_logits: NDArray[Any], box_regression: NDArray[Any], spec: DetectorSpec
) -> Rows:
    """Return the NMS inputs of one image: the best K pairs at or above the score threshold.

    Args:
        class_logits: ``[A,C]``.
        box_regression: ``[A,4]``.
        spec: the spec with anchors, input size, threshold and K.
    """
    anchors = anchor_boxes(spec.anchors, spec.input.height, spec.input.width)
    logits = np.asarray(class_logits, dtype=np.float32)
    rows, classes = top_candidates(logits, spec.output.candidates)
    scores = sigmoid(logits[rows, classes])
    strong = scores >= spec.output.score_threshold
    boxes = decode_boxes(np.asarray(box_regression)[rows[strong]], anchors[rows[strong]])
    return make_rows(boxes, scores[strong], classes[strong], spec.output.candidates)


def iou_matrix(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the IoU of every xyxy box ``[n,4]`` with every xyxy box ``[m,4]``, as ``[n,m]``.

    Two equal boxes have IoU 1 even if they have no area; NaN counts as no overlap.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        shared = np.ones((len(first), len(second)))
        for axis in (0, 1):
            low = np.maximum(first[:, None, axis], second[None, :, axis])
            high = np.minimum(first[:, None, axis + 2], second[None, :, axis + 2])
            shared *= np.maximum(high - low, 0.0)
        area, other = (np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (first, second))
        ratio: NDArray[np.float64] = shared / (area[:, None] + other[None, :] - shared)
    # Points give 0/0, NaN boxes give NaN, and inf/inf has no meaning as an overlap.
    row, column = np.nonzero(~np.isfinite(ratio))
    ratio[row, column] = (first[row] == second[column]).all(axis=1)
    return ratio


def overlapping_pairs(
    rows: Rows, minimum: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return (row, other, IoU) of all ordered pairs in one class with an IoU above ``minimum``."""
    empty = np.empty(0, dtype=np.int64)
    found = [(empty, empty, np.empty(0))]
    for label in np.unique(rows.classes):
        members = np.flatnonzero(rows.classes == label)
        for start in range(0, len(members), _PAIR_ROWS):
            part = members[start : start + _PAIR_ROWS]
            ious = iou_matrix(rows.boxes[part], rows.boxes[members])
            ious[part[:, None] == members[None, :]] = -1.0
            row, other = np.nonzero(ious > minimum)
            found.append((part[row], members[other], ious[row, other]))
    row, other, iou = (np.concatenate(column) for column in zip(*found, strict=True))
    return row, other, iou
