"""Score thresholds: one number for all classes, or one per class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from effdet_deploy.errors import DataError, UnknownNameError, UsageError
from effdet_deploy.files import BROKEN_DOCUMENT, parse_yaml, why_no_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ScoreThreshold: TypeAlias = float | Mapping[str, float]
"""A number for all classes, or numbers by class name; ``*`` stands for all other classes."""
OTHERS = "*"
SHOWN = 0.3
"""The lowest score that is shown to people by default."""


def shown_thresholds(asked: ScoreThreshold | None, floor: float) -> ScoreThreshold:
    """Return the lowest scores of detections that are shown to people.

    Args:
        asked: the user's thresholds; classes without one get the default.
        floor: the lowest score that the model gives.

    Returns:
        ``asked``; if that is None, the higher of :data:`SHOWN` and the model's floor.
    """
    default = max(SHOWN, floor)
    if asked is None:
        return default
    return {OTHERS: default} | dict(asked) if isinstance(asked, Mapping) else asked


def thresholds_by_class(
    asked: ScoreThreshold, names: Sequence[str], floor: float
) -> NDArray[np.float32]:
    """Return the thresholds of all classes.

    Args:
        asked: if it has class names but no ``*``, other classes get the model's floor.
        names: the class names, in order.
        floor: the lowest score that the model gives.

    Raises:
        UsageError: a threshold is below the floor, or not within 0-1.
        UnknownNameError: the model has no class with this name.
    """
    given = asked if isinstance(asked, Mapping) else {OTHERS: asked}
    thresholds = np.full(len(names), floor, np.float32)
    # Named classes are set after ``*``.
    for name in sorted(given, key=lambda name: name != OTHERS):
        value = given[name]
        of = "" if name == OTHERS else f" of '{name}'"
        if name != OTHERS and name not in names:
            raise UnknownNameError("class", name, names)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise UsageError(
                f"The score threshold{of} must be between 0 and 1, not {value}.",
                "Scores are probabilities: 0.3 is a common choice.",
            )
        if value < floor:
            raise UsageError(
                f"The model gives no scores below {floor}, so a threshold{of} of {value} is not "
                "possible.",
                f"Choose {floor} or more, or export the model with --score-threshold {value}.",
            )
        thresholds[[name in (OTHERS, each) for each in names]] = value
    return thresholds


def read_thresholds(text: str | None) -> ScoreThreshold | None:
    """Read the value of an option: a number, or a JSON or YAML file of numbers by class.

    None stays None.

    Raises:
        UsageError: the text is neither a number nor a file.
        DataError: the file does not hold numbers by class.
        MissingPackageError: PyYAML is not installed, for a file that is not JSON.
    """
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        path = Path(text)
    if why_no_file(path):
        raise UsageError(
            f"--score-threshold takes a number or a file, but there is no file '{text}'.",
            "Try --score-threshold 0.3, or name a JSON or YAML file of thresholds by class.",
        )
    try:
        document: Any = _parse(path)
        if not isinstance(document, dict) or not document:
            raise TypeError("it holds no thresholds by class")
        return {str(name): float(value) for name, value in document.items()}
    except BROKEN_DOCUMENT as error:
        raise DataError(
            f"The file of thresholds '{path}' cannot be read: {error}.",
            'Give thresholds by class, such as {"person": 0.5, "*": 0.3}.',
        ) from error


def _parse(path: Path) -> Any:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".json":
        return json.loads(text)
    return parse_yaml(text, "reading thresholds from YAML")
