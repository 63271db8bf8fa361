"""The accuracy of several detectors on one set, and their differences from the first."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effdet_deploy.evaluation.accuracy import Accuracy, Difference, difference, measure
from effdet_deploy.evaluation.predictions import joined_to, notes_on, predict
from effdet_deploy.evaluation.soundness import doubts_about

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from effdet_deploy.detection.detector import Detector
    from effdet_deploy.evaluation.cocoset import CocoSet

_METRICS_IN_JSON = ("ap", "ap50", "ap75", "by_category")


@dataclass(frozen=True)
class Evaluated:
    """A detector's accuracy, and its difference from the first detector's; None for the first.

    ``lacking`` are the ids of categories that the model has no class for; ``ap_common`` is the mAP
    over all other categories.
    """

    name: str
    accuracy: Accuracy
    difference: Difference | None
    lacking: tuple[int, ...] = ()
    ap_common: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """What several detectors reach on one set.

    Attributes:
        pictures: the number of pictures.
        categories: the names of all categories of the set by id.
        models: the results in the order of the detectors.
        notes: what was left out of the set, and how classes were matched with categories, unless it
            is obvious.
        doubts: sentences about signs that the annotations do not belong to these pictures; then the
            accuracy is not meaningful.
    """

    pictures: int
    categories: dict[int, str]
    models: tuple[Evaluated, ...]
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON, with accuracies as fractions and differences in points."""
        return {
            "pictures": self.pictures,
            "models": [
                {
                    "model": each.name,
                    **{name: getattr(each.accuracy, name) for name in _METRICS_IN_JSON},
                    "difference": each.difference and dataclasses.asdict(each.difference),
                    **(
                        {"lacking": list(each.lacking), "ap_common": each.ap_common}
                        if each.lacking
                        else {}
                    ),
                }
                for each in self.models
            ],
            **({"notes": list(self.notes)} if self.notes else {}),
            **({"doubts": list(self.doubts)} if self.doubts else {}),
        }


def evaluate(
    detectors: Mapping[str, Detector],
    dataset: CocoSet,
    progress: Callable[[str, int], None] = lambda _name, _done: None,
    *,
    fast_decode: bool = False,
) -> Evaluation:
    """Measure detectors on a set, one after the other; differences are paired.

    Args:
        detectors: the detectors by name or path; the first is the baseline.
        dataset: the pictures with their true boxes.
        progress: called with a detector's name and the number of pictures it has seen.
        fast_decode: decode JPEGs no larger than needed; see :meth:`Detector.stream`.

    Raises:
        DataError: a detector's classes are not categories of the set; no detector has run.
        ImageError: a picture is unreadable.
    """
    joined = {name: joined_to(detector.spec, dataset) for name, detector in detectors.items()}
    doubts = doubts_about(dataset)
    models: list[Evaluated] = []
    for name, detector in detectors.items():
        tell = partial(progress, Path(name).name)
        tell(0)
        accuracy = measure(
            predict(detector, dataset, tell, joined[name], fast_decode=fast_decode), dataset
        )
        against = difference(accuracy, models[0].accuracy) if models else None
        lacking = joined[name].lacking
        common = accuracy.ap_without(lacking) if lacking else None
        models.append(Evaluated(name, accuracy, against, lacking, common))
    notes = list(notes_on(dataset, (detector.spec for detector in detectors.values())))
    notes += [
        f"{Path(each.name).name} has no class for {dataset.named(each.lacking)}; over the other "
        f"categories its mAP is {100 * each.ap_common:.2f}."
        for each in models
        if each.ap_common is not None
    ]
    return Evaluation(len(dataset), dataset.categories, tuple(models), tuple(notes), doubts)
