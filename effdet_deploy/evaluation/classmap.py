"""Matching of a model's classes with the categories of an annotated set: by name, then by id.

A model numbers its classes like the set that it was trained on; another set may start from 0, leave
gaps, or use another order. Matched by number alone, a detector of mAP 72 reaches 1.6, and
nothing reports an error. So if both sides have names, the names decide; if names and numbers
contradict each other, the user is asked.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effdet_deploy.artifact.labels import number_of
from effdet_deploy.errors import DataError, UsageError
from effdet_deploy.files import read_json_object

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from effdet_deploy.artifact.spec import DetectorSpec

BY_NAME, BY_ID = "by-name", "by-id"
NAMES_ALONE = "names-alone"
"""Match by name only, for a set whose ids have no meaning; no message mentions these ids."""
_UNNAMED = re.compile(r"(class|unused) \d+")
"""Names of classes that have no name of their own."""
_SHOWN_CLASSES = 6


@dataclass(frozen=True)
class ClassMap:
    """The categories that a model's classes stand for.

    Attributes:
        category_of: the set's category ids by the model's ids, without classes that the set lacks.
            None if the model's classes have no names: then ids are used as they are.
        lacking: ids of the set's categories for which the model has no class.
        note: a sentence that the user should read; empty if names and ids agree.
    """

    category_of: dict[int, int] | None
    lacking: tuple[int, ...] = ()
    note: str = ""

    def of_results(self, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return COCO results with the set's ids, without classes that the set lacks."""
        joined = self.category_of
        if joined is None:
            return results
        return [
            row | {"category_id": joined[row["category_id"]]}
            for row in results
            if row["category_id"] in joined
        ]


def join_classes(
    spec: DetectorSpec, categories: Mapping[int, str], rule: str | Path | None = None
) -> ClassMap:
    """Find the categories of a model's classes.

    Args:
        spec: the spec of the model.
        categories: the set's names by id.
        rule: ``by-name`` or ``by-id`` says what counts if names and ids contradict each other; a
            JSON file maps class names to category ids; None asks the user.

    Raises:
        DataError: names and ids contradict each other, or have nothing in common; or the file is
            unreadable or names an unknown class or category.
        UsageError: the rule is unknown.
    """
    rule = None if rule is None else str(rule)
    if rule is not None and rule not in (BY_NAME, BY_ID, NAMES_ALONE):
        return _from_file(spec, categories, rule)
    ours = {each.category_id: each.name for each in spec.classes}
    if not ours:
        return ClassMap(None)
    same_ids = {number: number for number in ours if number in categories}
    named = {
        number: _without_case_and_dashes(name)
        for number, name in ours.items()
        if not _UNNAMED.fullmatch(name)
    }
    ids_of = {_without_case_and_dashes(name): number for number, name in categories.items()}
    by_name = {number: ids_of[name] for number, name in named.items() if name in ids_of}
    if rule == BY_ID or (not named and rule != NAMES_ALONE):
        found, note = same_ids, ""
        if not named:
            note = (
                "The model's classes have no names, so they were matched with the annotations' "
                "categories by id."
            )
    else:
        if rule is None:
            _refuse_conflicts(ours, categories, named, by_name)
        found, note = by_name, "" if rule == NAMES_ALONE else _note_on_other_ids(by_name)
    if not found:
        raise DataError(
            f"The model's classes ({_first_names(ours)}) and the annotations' categories "
            f"({_first_names(categories)}) have nothing in common.",
            "Export the model with --labels ANNOTATIONS.json, or match them with --class-map FILE.",
        )
    return ClassMap(found, tuple(sorted(categories.keys() - set(found.values()))), note)


def _refuse_conflicts(
    ours: Mapping[int, str],
    categories: Mapping[int, str],
    named: Mapping[int, str],
    by_name: Mapping[int, int],
) -> None:
    """Raise DataError if ids contradict the match ``by_name``, or if a name occurs twice."""
    contradicting = [
        number
        for number in ours
        if number in categories and number in named and number not in by_name
    ]
    if contradicting:
        raise DataError(
            "Some ids have one name in the model and another in the annotations: "
            f"{_first_pairs(ours, categories, contradicting)}.",
            "Choose what decides: --class-map by-name, by-id, or a JSON file that maps class "
            "names to category ids.",
        )
    twice = [
        name
        for names in (named.values(), map(_without_case_and_dashes, categories.values()))
        for name, count in Counter(names).items()
        if count > 1
    ]
    if twice and by_name != {number: number for number in ours if number in categories}:
        raise DataError(
            f"The name '{twice[0]}' occurs twice among the model's classes or among the "
            "annotations' categories.",
            "Choose what decides: --class-map by-id, or a JSON file that maps class names "
            "to category ids.",
        )


def _without_case_and_dashes(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _note_on_other_ids(found: Mapping[int, int]) -> str:
    moved = sum(ours != theirs for ours, theirs in found.items())
    if not moved:
        return ""
    return (
        f"The classes were matched by name: {moved} of {len(found)} have other ids in the "
        "annotations than in the model."
    )


def _first_pairs(ours: Mapping[int, str], theirs: Mapping[int, str], ids: list[int]) -> str:
    rows = [
        f"{each} is '{ours[each]}' and '{theirs[each]}'" for each in sorted(ids)[:_SHOWN_CLASSES]
    ]
    return ", ".join(rows) + (", …" if len(ids) > _SHOWN_CLASSES else "")


def _first_names(names: Mapping[int, str]) -> str:
    rows = [f"{number} {name}" for number, name in sorted(names.items())[:_SHOWN_CLASSES]]
    return ", ".join(rows) + (", …" if len(names) > _SHOWN_CLASSES else "")


def _from_file(spec: DetectorSpec, categories: Mapping[int, str], rule: str) -> ClassMap:
    from pathlib import Path

    path = Path(rule)
    if path.suffix.lower() != ".json":
        raise UsageError(
            f"--class-map takes {BY_NAME}, {BY_ID} or a JSON file, not '{rule}'.",
            "See effdet-deploy eval --help.",
        )
    given = read_json_object(path, "The class map", 'Map class names to ids: {"cat": 17}.')
    names = {each.name: each.category_id for each in spec.classes}
    try:
        given = {name: number_of(value) for name, value in given.items()}
    except ValueError as error:
        raise DataError(f"In the class map '{path}', {error}.", "Correct this entry.") from error
    unknown = [name for name in given if name not in names]
    absent = [number for number in given.values() if number not in categories]
    if unknown or absent:
        what = f"no class of the model is '{unknown[0]}'" if unknown else (
            f"no category of the annotations has the id {absent[0]}"
        )  # fmt: skip
        raise DataError(f"The class map '{path}' does not fit: {what}.", "Correct this entry.")
    found = {names[name]: number for name, number in given.items()}
    return ClassMap(found, tuple(sorted(categories.keys() - set(found.values()))))
