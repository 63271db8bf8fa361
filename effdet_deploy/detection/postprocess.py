"""Postprocessing of raw heads in numpy: box decoding and greedy NMS.

It is used for artifacts that were exported with ``--nms none``, and to test the static NMS of the
graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.artifact.anchors import anchor_boxes
from effdet_deploy.artifact.placement import box_limits
from effdet_deploy.artifact.spec import DETECTION_OUTPUTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import BoxFormat, DetectorSpec, SoftNmsSpec

    Floats = NDArray[np.float32]
    Integers = NDArray[np.int64]


def decode_boxes(regression: Floats, anchors: Floats, box_format: BoxFormat = "xyxy") -> Floats:
    """Decode ``regression`` ``[...,4]`` (ty, tx, th, tw) on yxyx ``anchors`` ``[...,4]``.

    Returns:
        float32 ``[...,4]`` corners in network pixels, unclipped, ordered as ``box_format`` says.
        Formula: Faster R-CNN (Ren et al. 2015) without variances, as in effdet.
    """
    ymin, xmin, ymax, xmax = np.moveaxis(anchors, -1, 0)
    height, width = ymax - ymin, xmax - xmin
    ty, tx, th, tw = np.moveaxis(np.asarray(regression, dtype=np.float32), -1, 0)
    half_h, half_w = np.exp(th) * height / 2, np.exp(tw) * width / 2
    center_y, center_x = ty * height + (ymin + ymax) / 2, tx * width + (xmin + xmax) / 2
    y = (center_y - half_h, center_y + half_h)
    x = (center_x - half_w, center_x + half_w)
    order = (x[0], y[0], x[1], y[1]) if box_format == "xyxy" else (y[0], x[0], y[1], x[1])
    return np.stack(order, axis=-1)


def iou_with(box: Floats, others: Floats) -> Floats:
    """Return the IoU of ``box`` ``[4]`` with ``others`` ``[n,4]``, float32; NaN for two points."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    inner = np.prod(np.maximum(high - low, np.float32(0)), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1)
    own = (box[2] - box[0]) * (box[3] - box[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Floats = inner / (own + areas - inner)
    return ratio


def greedy_nms(
    boxes: Floats, classes: Integers, iou_threshold: float, limit: int | None = None
) -> Integers:
    """Keep a box unless a better box of its class, kept before, overlaps it too much.

    Args:
        boxes: ``[n,4]`` corners (either order), best score first.
        classes: ``[n]``; only boxes of equal class suppress each other.
        iou_threshold: a box suppresses boxes that overlap it by more than this IoU.
        limit: the largest number of kept boxes; None for any.

    Returns:
        The indices of the kept boxes, ascending.
    """
    kept: list[int] = []
    alive = np.ones(len(boxes), dtype=bool)
    for row in range(len(boxes)):
        if not alive[row]:
            continue
        kept.append(row)
        if len(kept) == limit:
            break
        rivals = row + 1 + np.flatnonzero(alive[row + 1 :] & (classes[row + 1 :] == classes[row]))
        alive[rivals[iou_with(boxes[row], boxes[rivals]) > iou_threshold]] = False
    return np.array(kept, dtype=np.int64)


def soft_nms(
    boxes: Floats, scores: Floats, classes: Integers, soft: SoftNmsSpec, limit: int | None = None
) -> tuple[Integers, Floats]:
    """Lower the scores of boxes that a better box of their class overlaps, best box first.

    Args:
        boxes: ``[n,4]`` corners (either order).
        scores: ``[n]``.
        classes: ``[n]``; only boxes of the same class lower each other's scores.
        soft: the settings.
        limit: the largest number of boxes; None for any.

    Returns:
        The indices of the remaining boxes, best lowered score first, and their lowered scores.
    """
    left = np.array(scores, np.float32)
    alive = np.ones(len(left), dtype=bool)
    kept: list[int] = []
    while alive.any() and len(kept) != limit:
        row = int(np.argmax(np.where(alive, left, np.float32(-1))))
        kept.append(row)
        alive[row] = False
        rivals = np.flatnonzero(alive & (classes == classes[row]))
        iou = np.nan_to_num(iou_with(boxes[row], boxes[rivals]))
        if soft.decay == "gaussian":
            left[rivals] *= np.exp(-(iou**2) / np.float32(soft.sigma))
        else:
            left[rivals] *= np.where(iou > soft.iou_threshold, 1 - iou, np.float32(1))
        alive &= left > soft.score_threshold
    return np.array(kept, dtype=np.int64), left[kept]


def top_candidates(class_logits: Floats, count: int) -> tuple[Integers, Integers]:
    """Pick the ``count`` best (anchor, class) pairs of ``class_logits`` ``[A,C]``.

    Returns:
        Anchor and class indices ``[K]``, best first, ties ordered by anchor and then class; K is
        ``count`` or the number of pairs if that is smaller.
    """
    classes = class_logits.shape[1]
    # The best K pairs belong to the K anchors whose best classes score highest: every anchor that
    # ranks before a pair's anchor has a pair that ranks before this pair. The same holds for ties.
    anchors = np.sort(_best(class_logits.max(axis=1), count))
    pairs = _best(class_logits[anchors].reshape(-1), count)
    return anchors[pairs // classes], pairs % classes


def _best(values: Floats, count: int) -> Integers:
    """Return the indices of the ``count`` largest values, largest first, ties by index."""
    if count < len(values):
        border = np.partition(values, len(values) - count)[len(values) - count]
        chosen = np.flatnonzero(values >= border)
    else:
        chosen = np.arange(len(values))
    return chosen[np.argsort(-values[chosen], kind="stable")][:count]


def sigmoid(logits: Floats) -> Floats:
    """Return 1 / (1 + exp(-logits)) in float32, without overflow warnings."""
    with np.errstate(over="ignore"):
        scores: Floats = np.float32(1) / (np.float32(1) + np.exp(-logits))
    return scores


def finish_heads(
    class_logits: Floats, box_regression: Floats, spec: DetectorSpec
) -> dict[str, NDArray[Any]]:
    """Turn raw heads into the four detection outputs, as the graph defines them.

    Args:
        class_logits: ``[N,A,C]``.
        box_regression: ``[N,A,4]`` (ty, tx, th, tw).
        spec: anchors, input size, thresholds, K, D and box format.

    Returns:
        ``num_detections`` int32 ``[N,1]``, ``detection_boxes`` float32 ``[N,D,4]`` in network
        pixels, unclipped, ``detection_scores`` float32 and ``detection_classes`` int32 ``[N,D]``;
        best score first, unused rows zero.
    """
    anchors = anchor_boxes(spec.anchors, spec.input.height, spec.input.width)
    images, depth = len(class_logits), spec.output.max_detections
    columns: tuple[NDArray[Any], ...] = (
        np.zeros((images, 1), np.int32),
        np.zeros((images, depth, 4), np.float32),
        np.zeros((images, depth), np.float32),
        np.zeros((images, depth), np.int32),
    )
    for row, (logits, regression) in enumerate(zip(class_logits, box_regression, strict=True)):
        floats = np.asarray(logits, dtype=np.float32)
        found: tuple[NDArray[Any], ...] = _finish_image(floats, regression, anchors, spec)
        columns[0][row] = len(found[0])
        for column, values in zip(columns[1:], found, strict=True):
            column[row, : len(values)] = values
    return dict(zip(DETECTION_OUTPUTS, columns, strict=True))


def _finish_image(
    logits: Floats, regression: Floats, anchors: Floats, spec: DetectorSpec
) -> tuple[Floats, Floats, Integers]:
    output, frame = spec.output, box_limits(spec.input)
    rows, classes = top_candidates(logits, output.candidates)
    scores = sigmoid(logits[rows, classes])
    strong = scores >= output.score_threshold
    rows, classes, scores = rows[strong], classes[strong], scores[strong]
    boxes = decode_boxes(regression[rows], anchors[rows], output.box_format)
    groups = np.zeros_like(classes) if output.class_agnostic else classes
    # Boxes outside of a frame must not take a row.
    limit = output.max_detections if frame is None else None
    if output.soft_nms is None:
        kept = greedy_nms(boxes, groups, output.iou_threshold, limit)
    else:
        kept, lowered = soft_nms(boxes, scores, groups, output.soft_nms, limit)
        scores[kept] = lowered
        kept = kept[lowered >= output.score_threshold]
    if frame is not None:
        low, high = (np.array(each, np.float32) for each in (frame[:2], frame[2:]))
        order = [1, 0] if output.box_format == "xyxy" else [0, 1]
        corners = np.clip(boxes[kept].reshape(-1, 2, 2), low[order], high[order])
        inside = np.flatnonzero(np.all(corners[:, 1] > corners[:, 0], axis=1))
        kept = kept[inside[: output.max_detections]]
        boxes[kept] = corners[inside[: output.max_detections]].reshape(-1, 4)
    return boxes[kept], scores[kept], classes[kept]
