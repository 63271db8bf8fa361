"""Running a detector over an evaluation set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from effdet_deploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.detection.detector import Detector
    from effdet_deploy.evaluation.cocoset import CocoSet

    Results = list[dict[str, Any]]

_SHOWN_IDS = 5


def predict(
    detector: Detector, dataset: CocoSet, progress: Callable[[int], None] = lambda _done: None
) -> Results:
    """Return the COCO results of ``detector`` on every picture; ``progress`` is told the count.

    Raises:
        DataError: no class of the detector is a category of the set.
        ImageError: a picture is unreadable.
    """
    require_common_categories(detector.spec, dataset)
    results: Results = []
    pairs = list(dataset.paths.items())
    step = detector.spec.batch.maximum
    for start in range(0, len(pairs), step):
        chunk = pairs[start : start + step]
        found = detector.detect([path for _, path in chunk])
        for (image_id, _), each in zip(chunk, found, strict=True):
            results += each.to_coco(image_id)
        progress(min(start + step, len(pairs)))
    return results


def require_common_categories(spec: DetectorSpec, dataset: CocoSet) -> None:
    """Check that a detector knows any category of the set; one that names no classes may.

    Raises:
        DataError: it knows none.
    """
    ids = {each.category_id for each in spec.classes}
    if ids and not ids & dataset.categories.keys():
        raise DataError(
            f"The model's category ids ({_some(ids)}) and those of the annotations "
            f"({_some(dataset.categories.keys())}) have nothing in common.",
            "Export the model with --labels ANNOTATIONS.json, so that it knows the ids.",
        )


def _some(ids: Collection[int]) -> str:
    shown = ", ".join(map(str, sorted(ids)[:_SHOWN_IDS]))
    return f"{shown}, …" if len(ids) > _SHOWN_IDS else shown
