"""mAP as COCO defines it, and the confidence interval of a difference of two mAPs."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.errors import DataError, require_package

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from effdet_deploy.evaluation.cocoset import CocoSet
    from effdet_deploy.evaluation.predictions import Results

RECALLS = np.linspace(0.0, 1.0, 101)
CONFIDENCE = 0.95
RESAMPLES = 500
_SEED = 0


@dataclass(frozen=True)
class Accuracy:
    """COCO box metrics as fractions: mAP@[.5:.95], AP50, AP75, and AP by category id.

    A category without true boxes has no AP and is left out.
    """

    ap: float
    ap50: float
    ap75: float
    by_category: dict[int, float]
    evidence: tuple[_CategoryEvidence, ...] = ()

    def ap_without(self, lacking: Collection[int]) -> float | None:
        """Return the mAP without the categories ``lacking``; None if none remains."""
        others = [ap for category, ap in self.by_category.items() if category not in lacking]
        return sum(others) / len(others) if others else None


@dataclass(frozen=True, eq=False)
class _CategoryEvidence:
    """All detections of a category, best score first, and the number of true boxes per image.

    ``hits`` and ``ignored`` are bool ``[T,n]``, for T IoU thresholds and n detections. ``image`` is
    int ``[n]``, the position of a detection's image in the set. ``truths`` is int ``[images]``, the
    number of true boxes.
    """

    hits: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    image: NDArray[np.int64]
    truths: NDArray[np.int64]


@dataclass(frozen=True)
class Difference:
    """A paired difference of mAPs, in points (hundredths), with its bootstrap interval."""

    points: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.points:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def measure(results: Results, dataset: CocoSet) -> Accuracy:
    """Measure COCO results against the set with pycocotools.

    Raises:
        DataError: the set has no true box that counts.
        MissingPackageError: pycocotools is not installed.
    """
    require_pycocotools()
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = _indexed(dataset.document)
        # loadRes does not accept an empty list.
        nothing = {**dataset.document, "annotations": []}
        found = truth.loadRes(results) if results else _indexed(nothing)
        metric = COCOeval(truth, found, "bbox")
        metric.evaluate()
        metric.accumulate()
        metric.summarize()
    evidence = tuple(_evidence(metric))
    if not evidence:
        raise DataError(
            "The annotations have no boxes of single objects: all of them are crowds.",
            "Annotate single objects.",
        )
    precision = metric.eval["precision"][:, :, :, 0, -1]
    by_category = {}
    for index, category in enumerate(metric.params.catIds):
        values = precision[:, :, index]
        if (values > -1).any():
            by_category[int(category)] = float(values[values > -1].mean())
    ap, ap50, ap75 = (float(value) for value in metric.stats[:3])
    return Accuracy(ap, ap50, ap75, by_category, evidence)


def require_pycocotools() -> None:
    """Check that pycocotools is installed, before any work.

    Raises:
        MissingPackageError: it is not installed.
    """
    require_package("pycocotools", "measuring accuracy", "eval")


def _indexed(document: dict[str, Any]) -> Any:
    from pycocotools.coco import COCO

    index = COCO()
    # loadRes and createIndex write into the document, and need its optional parts.
    index.dataset = {"info": {}, **document}
    index.createIndex()
    return index


def _evidence(metric: Any) -> list[_CategoryEvidence]:
    """Collect pycocotools' matches per category, for boxes of all sizes."""
    images = len(metric.params.imgIds)
    areas = len(metric.params.areaRng)
    found = []
    for index in range(len(metric.params.catIds)):
        start = index * areas * images
        cells = list(enumerate(metric.evalImgs[start : start + images]))
        full = [(position, cell) for position, cell in cells if cell is not None]
        truths = np.zeros(images, dtype=np.int64)
        for position, cell in full:
            truths[position] = np.count_nonzero(np.logical_not(cell["gtIgnore"]))
        if not truths.any():
            continue
        scores = np.concatenate([np.asarray(cell["dtScores"], dtype=float) for _, cell in full])
        order = np.argsort(-scores, kind="mergesort")
        image = np.concatenate(
            [np.full(len(cell["dtScores"]), position) for position, cell in full]
        ).astype(np.int64)
        hits = np.concatenate([cell["dtMatches"] for _, cell in full], axis=1) > 0
        ignored = np.concatenate([cell["dtIgnore"] for _, cell in full], axis=1) > 0
        found.append(_CategoryEvidence(hits[:, order], ignored[:, order], image[order], truths))
    return found


def weighted_ap(accuracy: Accuracy, weights: NDArray[np.int64]) -> float:
    """Return the mAP of the set in which image i occurs ``weights[i]`` times."""
    means = []
    for each in accuracy.evidence:
        truths = int((each.truths * weights).sum())
        if truths:
            means.append(_category_ap(each, weights[each.image], truths))
    return float(np.mean(means)) if means else float("nan")


def _category_ap(each: _CategoryEvidence, weight: NDArray[np.int64], truths: int) -> float:
    """Return the 101-point interpolated AP, averaged over IoU thresholds (Lin et al. 2014)."""
    if not len(weight):
        return 0.0
    counted = np.where(each.ignored, 0, weight)
    right = np.cumsum(counted * each.hits, axis=1)
    seen = np.cumsum(counted, axis=1)
    recall = right / truths
    precision = right / np.maximum(seen, np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    total = 0.0
    for line, at in zip(envelope, recall, strict=True):
        positions = np.searchsorted(at, RECALLS, side="left")
        total += float(line[positions[positions < len(line)]].sum()) / len(RECALLS)
    return total / len(envelope)


def difference(mine: Accuracy, reference: Accuracy, resamples: int = RESAMPLES) -> Difference:
    """Return by how much ``mine`` exceeds ``reference``, measured on the same pictures.

    The interval comes from a bootstrap over pictures (Efron 1979) that resamples both sides
    together.
    """
    images = len(mine.evidence[0].truths) if mine.evidence else 0
    points = 100 * (mine.ap - reference.ap)
    if not images:
        return Difference(points, points, points)
    random = np.random.default_rng(_SEED)
    samples = np.empty(resamples)
    for index in range(resamples):
        weights = np.bincount(random.integers(images, size=images), minlength=images)
        samples[index] = weighted_ap(mine, weights) - weighted_ap(reference, weights)
    edge = (1 - CONFIDENCE) / 2
    low, high = 100 * np.nanquantile(samples, [edge, 1 - edge])
    return Difference(points, float(low), float(high))
