"""Reading of files that name classes, and finding the output of a model that a name belongs to.

Annotations number their categories and models number their outputs, and neither says how the two
are related. Two conventions are in use. By *rank*, the category with the k-th smallest id is
output k. By *id*, the category with id i is output i - 1: effdet's CocoParser trains like this,
COCO's 80 categories lie on 90 outputs like this, and the TensorFlow Object Detection API numbers
its label maps like this. Where both conventions fit a model but give different names, the user is
asked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from effdet_deploy.artifact.classes import class_specs
from effdet_deploy.artifact.spec import MAX_CLASSES, MAX_NAME, ClassSpec
from effdet_deploy.artifact.textproto import read_text_proto
from effdet_deploy.errors import DataError, UsageError
from effdet_deploy.files import BROKEN_DOCUMENT, parse_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BY_RANK, BY_ID = "rank", "id"
RULES = (BY_RANK, BY_ID)
_REMEDY = (
    "Pass a text file with one class name per line, a JSON list, COCO annotations, YOLO's "
    "data.yaml or a .pbtxt map."
)
_LARGEST_ID = 2**53
_SHOWN_ITEMS = 3
_SHOWN_DIGITS = 40


@dataclass(frozen=True)
class Labels:
    """The class names and ids that a file gives.

    Attributes:
        source: the file's name, for messages.
        names: the class names; by ascending id where the file has ids.
        ids: the id of each name; None where the file only lists names, in the order of the outputs.
        root: the index of a category that only groups other categories, as Roboflow writes one;
            None where there is no such category.
        counts_outputs: whether ids number the model's outputs from 1 by definition.
    """

    source: str
    names: tuple[str, ...]
    ids: tuple[int, ...] | None = None
    root: int | None = None
    counts_outputs: bool = False

    def classes(
        self, num_classes: int, rule: str | None = None
    ) -> tuple[tuple[ClassSpec, ...], tuple[str, ...]]:
        """Name every output of a model.

        Args:
            num_classes: how many outputs the model has.
            rule: ``rank`` or ``id`` says which output an id belongs to; None takes the
                one that fits.

        Returns:
            The classes, and sentences on what was assumed about their order.

        Raises:
            DataError: the labels do not fit this number of outputs, or fit them in two ways.
            UsageError: the rule is unknown, or the file has no ids.
        """
        if rule is not None and (rule not in RULES or self.ids is None):
            raise UsageError(
                f"--labels-by {rule} does not fit the labels of '{self.source}': it must be rank "
                "or id, and the labels must have ids.",
                "Leave --labels-by out, or pass annotations that have ids.",
            )
        if self.ids is None:
            return class_specs(num_classes, self.names), ()
        ways = {BY_RANK: self._by_rank(num_classes), BY_ID: self._by_id(num_classes)}
        asked = rule or (BY_ID if self.counts_outputs else None)
        found = {way: each for way, each in ways.items() if each and asked in (None, way)}
        # Names that fill only the first outputs belong to another model, unless --labels-by is
        # given.
        if not found or (
            not ways[BY_RANK] and not rule and self._fills_only_the_first(num_classes)
        ):
            self._refuse_count(num_classes, rule)
        if len(set(found.values())) > 1:
            self._refuse_two_ways(*found.values())
        way, classes = next(iter(found.items()))
        is_plain = self.counts_outputs or (len(found) == len(ways) and self.root is None)
        return classes, () if is_plain else (self._assumption(way, num_classes),)

    def _named(self, num_classes: int) -> tuple[ClassSpec, ...]:
        """Return the named classes; the root is among them only if an output is left for it."""
        pairs = enumerate(zip(self.names, self.ids or (), strict=True))
        drops_root = len(self.names) != num_classes
        return tuple(ClassSpec(*each) for at, each in pairs if at != self.root or not drops_root)

    def _by_rank(self, num_classes: int) -> tuple[ClassSpec, ...]:
        named = self._named(num_classes)
        return named if len(named) == num_classes else ()

    def _by_id(self, num_classes: int) -> tuple[ClassSpec, ...]:
        # Id 0 is the background in effdet's training and has no output.
        named = {each.category_id: each for each in self._named(num_classes) if each.category_id}
        if not named or min(named) < 1 or max(named) > num_classes:
            return ()
        return tuple(
            named.get(number, ClassSpec(f"unused {number}", number))
            for number in range(1, num_classes + 1)
        )

    def _fills_only_the_first(self, num_classes: int) -> bool:
        ids = [each.category_id for each in self._named(num_classes)]
        return ids == list(range(1, len(ids) + 1)) and len(ids) < num_classes

    def _assumption(self, way: str, num_classes: int) -> str:
        order = (
            "in order of their ids (--labels-by rank)"
            if way == BY_RANK
            else "by id, where id 1 is the first output (--labels-by id, effdet's CocoParser)"
        )
        text = f"The {num_classes} outputs have the names of '{self.source}' {order}."
        if self.root is not None and len(self.names) != num_classes:
            text += f" '{self.names[self.root]}', which only groups other categories, was left out."
        return text

    def _refuse_count(self, num_classes: int, rule: str | None) -> NoReturn:
        ids = [each.category_id for each in self._named(num_classes)]
        by = f" with --labels-by {rule}" if rule else ""
        raise DataError(
            f"The {len(ids)} labels in '{self.source}', with ids {min(ids)} to {max(ids)}, do not "
            f"fit a model of {num_classes} classes{by}.",
            "Pass the annotations that the model was trained on; with --labels-by id, no id may be "
            "higher than the number of classes.",
        )

    def _refuse_two_ways(
        self, by_rank: tuple[ClassSpec, ...], by_id: tuple[ClassSpec, ...]
    ) -> NoReturn:
        differing = [
            f"output {place} is '{one.name}' by rank and '{other.name}' by id"
            for place, (one, other) in enumerate(zip(by_rank, by_id, strict=True))
            if one != other
        ]
        more = ", …" if len(differing) > _SHOWN_ITEMS else ""
        raise DataError(
            f"The ids of '{self.source}' fit {len(by_rank)} outputs in two ways: "
            f"{', '.join(differing[:_SHOWN_ITEMS])}{more}.",
            "Say how the model was trained: --labels-by rank (the smallest id is output 0), or "
            "--labels-by id (id 1 is output 0, as effdet's own CocoParser trains).",
        )


def read_labels(path: Path) -> Labels:
    """Read class names, and their ids where the file has them; the suffix tells the form.

    ``.json`` is a list of names, or COCO annotations; ``.yaml`` and ``.yml`` are YOLO's data file,
    whose ``names`` are a list, or a map from output to name; ``.pbtxt`` is a label map of the
    TensorFlow Object Detection API. Any other file has one name per line.

    Raises:
        DataError: the file is unreadable, empty or has another form.
        MissingPackageError: PyYAML or protobuf is not installed.
    """
    read = _READERS.get(path.suffix.lower(), _of_lines)
    try:
        labels = read(path.name, path.read_text(encoding="utf-8-sig"))
        _require_nameable(labels.names)
    except BROKEN_DOCUMENT as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"The labels file '{path}' cannot be read: {what}.", _REMEDY) from error
    if not all(labels.names):
        what = "a class without a name" if any(labels.names) else "no class names"
        raise DataError(f"The labels file '{path}' holds {what}.", _REMEDY)
    return labels


def _require_nameable(names: tuple[str, ...]) -> None:
    """Check that a spec can hold the names; raises ValueError."""
    longest = len(max(names, key=len))
    if longest > MAX_NAME or len(names) > MAX_CLASSES:
        raise ValueError(
            f"it has {len(names)} names of up to {longest} characters, but at most {MAX_CLASSES} "
            f"names of {MAX_NAME} characters are allowed"
        )
    # Encoding fails for half a surrogate pair, which is not text.
    "".join(names).encode()


def number_of(value: object) -> int:
    """Read an id, which many tools write as text; raises ValueError if it is not a number."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value[:_SHOWN_DIGITS])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _LARGEST_ID:
        raise ValueError(
            f"an id is {str(value)[:_SHOWN_DIGITS]!r}, not a whole number of at most 2^53"
        )
    return value


def categories_of(document: Mapping[str, Any]) -> tuple[dict[int, str], int | None]:
    """Return the names of COCO's categories by ascending id, and the id of the root or None.

    A root is a category without boxes that other categories name as their supercategory; Roboflow
    writes one above the classes of every project.

    Raises:
        KeyError, TypeError, ValueError: the document is not COCO, or an id is used twice.
    """
    listed = document["categories"]
    names = {number_of(each["id"]): str(each["name"]) for each in listed}
    if len(names) < len(listed):
        raise ValueError(f"{len(listed)} categories have only {len(names)} different ids")
    used = {number_of(each["category_id"]) for each in document.get("annotations") or ()}
    roots = [
        number
        for number, name in names.items()
        if number not in used
        and any(
            each.get("supercategory") == name and number_of(each["id"]) != number for each in listed
        )
    ]
    # If categories have several levels, there are several roots, and all categories are classes.
    root = roots[0] if len(roots) == 1 and used else None
    return dict(sorted(names.items())), root


def _of_lines(source: str, text: str) -> Labels:
    return _listed(source, list(filter(None, map(str.strip, text.splitlines()))))


def _listed(source: str, names: object) -> Labels:
    if not isinstance(names, list) or any(not isinstance(each, str) for each in names):
        raise TypeError("its names are not a list of text")
    return Labels(source, tuple(names) or ("",))


def _of_json(source: str, text: str) -> Labels:
    document = json.loads(text)
    if not isinstance(document, dict):
        return _listed(source, document)
    if "categories" not in document:
        raise ValueError(
            "it is JSON, but neither a list of names nor COCO annotations with 'categories'"
        )
    names, root = categories_of(document)
    place = None if root is None else list(names).index(root)
    return Labels(source, tuple(names.values()) or ("",), tuple(names), place)


def _of_yaml(source: str, text: str) -> Labels:
    document = parse_yaml(text, "reading labels from YAML")
    names = document["names"]
    if isinstance(names, dict):
        names = {number_of(output): name for output, name in names.items()}
        if sorted(names) != list(range(len(names))):
            raise ValueError(
                f"its names are numbered {sorted(names)[:_SHOWN_ITEMS]}… instead of 0, 1, 2, …"
            )
        names = [names[output] for output in sorted(names)]
    labels = _listed(source, names)
    if "nc" in document and number_of(document["nc"]) != len(names):
        raise ValueError(f"its nc is {document['nc']}, but it has {len(names)} names")
    return labels


def _of_pbtxt(source: str, text: str) -> Labels:
    # object_detection/protos/string_int_label_map.proto
    label_map = read_text_proto(text, {"item": {"name": str, "id": int, "display_name": str}})
    items = sorted(
        ((each["id"] or [0])[-1], (each["display_name"] or each["name"] or [""])[-1])
        for each in label_map["item"]
    )
    ids = [number for number, _ in items]
    if len(set(ids)) < len(ids) or min(ids, default=1) < 1:
        raise ValueError(
            f"its ids are {ids[:_SHOWN_ITEMS]}…, but they must be different and at least 1"
        )
    return Labels(
        source, tuple(name for _, name in items) or ("",), tuple(ids), counts_outputs=True
    )


_READERS = {".json": _of_json, ".yaml": _of_yaml, ".yml": _of_yaml, ".pbtxt": _of_pbtxt}
