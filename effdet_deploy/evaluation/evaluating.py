"""The accuracy of several detectors on one set, each against the first."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effdet_deploy.evaluation.accuracy import Accuracy, Difference, difference, measure
from effdet_deploy.evaluation.predictions import predict, require_common_categories

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from effdet_deploy.detection.detector import Detector
    from effdet_deploy.evaluation.cocoset import CocoSet

_WRITTEN = ("ap", "ap50", "ap75", "by_category")


@dataclass(frozen=True)
class Evaluated:
    """A detector's accuracy, and how far it lies above the first one's; None for that one."""

    name: str
    accuracy: Accuracy
    difference: Difference | None


@dataclass(frozen=True)
class Evaluation:
    """What several detectors reach on one set.

    Attributes:
        pictures: how many there are.
        categories: the name of every category of the set by its id.
        models: in the order in which they were given.
    """

    pictures: int
    categories: dict[int, str]
    models: tuple[Evaluated, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON; accuracies as fractions, differences in points."""
        return {
            "pictures": self.pictures,
            "models": [
                {
                    "model": each.name,
                    **{name: getattr(each.accuracy, name) for name in _WRITTEN},
                    "difference": each.difference and dataclasses.asdict(each.difference),
                }
                for each in self.models
            ],
        }


def evaluate(
    detectors: Mapping[str, Detector],
    dataset: CocoSet,
    progress: Callable[[str, int], None] = lambda _name, _done: None,
) -> Evaluation:
    """Measure detectors on a set, one after the other; differences are paired.

    Args:
        detectors: by name, or by path; the first is the baseline.
        dataset: the pictures with their true boxes.
        progress: told a detector's name and how many pictures it has seen.

    Raises:
        DataError: a detector's classes are no categories of the set; none was run then.
        ImageError: a picture is unreadable.
    """
    for detector in detectors.values():
        require_common_categories(detector.spec, dataset)
    models: list[Evaluated] = []
    for name, detector in detectors.items():
        tell = partial(progress, Path(name).name)
        tell(0)
        accuracy = measure(predict(detector, dataset, tell), dataset)
        against = difference(accuracy, models[0].accuracy) if models else None
        models.append(Evaluated(name, accuracy, against))
    return Evaluation(len(dataset), dataset.categories, tuple(models))
