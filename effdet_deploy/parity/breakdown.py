"""Where two artifacts agree: by class, by object size, and by differences of boxes and scores."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.detection.detections import Detections
from effdet_deploy.parity.rows import iou_matrix

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.parity.comparison import Comparison
    from effdet_deploy.parity.matching import ComparedImage

SIZES = (("small", 32.0**2), ("medium", 96.0**2), ("large", np.inf))
"""COCO's three object sizes by the area of the box in pixels of the picture, smallest first."""
_PERCENTILE = 95
"""The percentile that a :class:`Spread` gives."""


@dataclass(frozen=True)
class Count:
    """The detections of one group, counted.

    ``set_aside`` counts the border cases, where rounding decides; ``missed`` and ``extra`` leave
    them out.
    """

    reference: int = 0
    candidate: int = 0
    matched: int = 0
    missed: int = 0
    extra: int = 0
    set_aside: int = 0


@dataclass(frozen=True)
class Spread:
    """Absolute differences among matched pairs, ``percentile`` at 95%; all zero without pairs."""

    mean: float
    percentile: float
    largest: float


@dataclass(frozen=True)
class Breakdown:
    """The detections of a comparison, grouped.

    Attributes:
        classes: counts by class index, only for classes that the reference or the candidate
            detected.
        sizes: counts by the names of :data:`SIZES`.
        boxes: how far the boxes of a pair differ in the coordinate that differs most, in pixels of
            the picture.
        scores: how far the scores of a pair differ.
        least_iou: the smallest IoU of all pairs; 1 without pairs.
    """

    classes: dict[int, Count]
    sizes: dict[str, Count]
    boxes: Spread
    scores: Spread
    least_iou: float

    def to_dict(self, spec: DetectorSpec) -> dict[str, Any]:
        """Return the breakdown for JSON, with classes by name."""
        names = dict(enumerate(each.name for each in spec.classes))
        document = dataclasses.asdict(self)
        document["classes"] = [
            {"class": label, "name": names.get(label, str(label)), **count}
            for label, count in document["classes"].items()
        ]
        return document


def break_down(comparison: Comparison) -> Breakdown:
    """Group the detections of a comparison by class and size."""
    counted = Counter(_counted(comparison))
    classes: dict[int, dict[str, int]] = {label: {} for label, _, _ in sorted(counted)}
    sizes: dict[str, dict[str, int]] = {name: {} for name, _ in SIZES}
    for (label, size, what), count in counted.items():
        classes[label][what] = classes[label].get(what, 0) + count
        sizes[size][what] = sizes[size].get(what, 0) + count
    boxes, scores, ious = pair_differences(comparison.images)
    return Breakdown(
        {label: Count(**found) for label, found in classes.items()},
        {name: Count(**found) for name, found in sizes.items()},
        _spread(boxes),
        _spread(scores),
        float(ious.min(initial=1.0)),
    )


def _counted(comparison: Comparison) -> Iterator[tuple[int, str, str]]:
    """Yield (class, size, field of :class:`Count`) once for every detection counted there."""
    for image in comparison.images:
        matched = image.reference.take(image.matching.pairs[:, 0])
        for what, rows in (
            ("reference", image.reference),
            ("candidate", image.candidate),
            ("matched", matched),
        ):
            for label, box in zip(rows.classes.tolist(), rows.boxes.tolist(), strict=True):
                yield label, _size_of(box), what
    detections = comparison.report.detections
    for stray in detections.strays if detections else ():
        kind = "missed" if stray.side == "reference" else "extra"
        yield stray.label, _size_of(stray.box), "set_aside" if stray.excuse else kind


def _size_of(box: Sequence[float]) -> str:
    area = (box[2] - box[0]) * (box[3] - box[1])
    # A NaN box has no size; it is reported as not finite and counts as large here.
    return next((name for name, limit in SIZES if area < limit), SIZES[-1][0])


def pair_differences(
    images: Sequence[ComparedImage],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest coordinate difference, score difference and IoU of every matched pair."""
    found = [np.empty((3, 0))]
    for image in images:
        one = image.reference.take(image.matching.pairs[:, 0])
        other = image.candidate.take(image.matching.pairs[:, 1])
        if len(one):
            boxes = np.abs(one.boxes - other.boxes).max(axis=1)
            ious = np.diagonal(iou_matrix(one.boxes, other.boxes))
            found.append(np.stack([boxes, np.abs(one.scores - other.scores), ious]))
    boxes, scores, ious = np.concatenate(found, axis=1)
    return boxes, scores, ious


def _spread(values: NDArray[np.float64]) -> Spread:
    if not len(values):
        return Spread(0.0, 0.0, 0.0)
    return Spread(
        float(values.mean()), float(np.percentile(values, _PERCENTILE)), float(values.max())
    )


def coco_results(
    images: Sequence[ComparedImage], ids: Sequence[int], spec: DetectorSpec, *, candidate: bool
) -> list[dict[str, Any]]:
    """Return the detections of candidate or reference as COCO results, clipped to the pictures.

    Args:
        images: the images of a comparison, in order.
        ids: their COCO image ids, in the same order.
        spec: the spec of the candidate or of the reference; its classes name the categories.
        candidate: True for the candidate's detections, False for the reference's.
    """
    names = tuple(each.name for each in spec.classes)
    category_ids = tuple(each.category_id for each in spec.classes)
    results = []
    for image, image_id in zip(images, ids, strict=True):
        rows = image.candidate if candidate else image.reference
        height, width = image.size
        boxes = np.clip(rows.boxes, 0, [width, height, width, height]).astype(np.float32)
        scores = rows.scores.astype(np.float32)
        inside = (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3]) & np.isfinite(scores)
        found = Detections(boxes[inside], scores[inside], rows.classes[inside], names, category_ids)
        results += found.to_coco(image_id)
    return results
