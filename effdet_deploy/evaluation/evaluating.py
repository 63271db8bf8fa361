"""The accuracy of several detectors on one set, each against the first."""

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

_WRITTEN = ("ap", "ap50", "ap75", "by_category")


@dataclass(frozen=True)
class Evaluated:
    """A detector's accuracy, and how far it lies above the first one's; None for that one.

    ``lacking`` are the ids of categories that the model has no class for; ``ap_common`` is the mAP
    over the others.
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
        pictures: how many there are.
        categories: the name of every category of the set by its id.
        models: in the order in which they were given.
        notes: what was left out of the set, and how classes were joined to categories, where that
            is not plain.
        doubts: signs that the annotations are not of these pictures, a sentence each; an accuracy
            means nothing without them.
    """

    pictures: int
    categories: dict[int, str]
    models: tuple[Evaluated, ...]
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON; accuracies as fractions, differences in points."""
        return {
            "pictures": self.pictures,
            "models": [
                {
                    "model": each.name,
                    **{name: getattr(each.accuracy, name) for name in _WRITTEN},
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
        detectors: by name, or by path; the first is the baseline.
        dataset: the pictures with their true boxes.
        progress: told a detector's name and how many pictures it has seen.
        fast_decode: JPEGs are decoded no larger than needed; see :meth:`Detector.stream`.

    Raises:
        DataError: a detector's classes are no categories of the set; none was run then.
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
