"""Running a detector over an evaluation set."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from effdet_deploy.evaluation.classmap import join_classes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.detection.detector import Detector
    from effdet_deploy.evaluation.classmap import ClassMap
    from effdet_deploy.evaluation.cocoset import CocoSet

    Results = list[dict[str, Any]]


def joined_to(spec: DetectorSpec, dataset: CocoSet) -> ClassMap:
    """Return the categories that a model's classes stand for, by the rule ``dataset.class_map``.

    Raises:
        DataError: the classes and the categories cannot be matched.
    """
    return join_classes(spec, dataset.categories, dataset.class_map)


def notes_on(dataset: CocoSet, specs: Iterable[DetectorSpec]) -> tuple[str, ...]:
    """Return notes on what was left out of a set, and how models' classes were matched with it.

    Raises:
        DataError: the classes of a model and the categories cannot be matched.
    """
    joined = (joined_to(spec, dataset).note for spec in specs)
    return tuple(dict.fromkeys(filter(None, (*dataset.remarks, *joined))))


def predict(
    detector: Detector,
    dataset: CocoSet,
    progress: Callable[[int], None] = lambda _done: None,
    classes: ClassMap | None = None,
    *,
    fast_decode: bool = False,
) -> Results:
    """Return the COCO results of ``detector`` on every picture.

    Args:
        detector: the detector to run.
        dataset: the pictures.
        progress: called with the number of pictures done.
        classes: the categories of the classes; None matches them by name and id.
        fast_decode: decode JPEGs no larger than needed; see :meth:`Detector.stream`.

    Raises:
        DataError: the detector's classes and the set's categories cannot be matched.
        ImageError: a picture is unreadable.
    """
    joined = classes or joined_to(detector.spec, dataset)
    results: Results = []
    ids = list(dataset.paths)
    with contextlib.closing(
        detector.stream(dataset.paths.values(), fast_decode=fast_decode)
    ) as outcomes:
        for outcome in outcomes:
            found = outcome.required()
            results += joined.of_results(found.to_coco(ids[outcome.index]))
            progress(outcome.index + 1)
    return results
