"""Evaluation sets: COCO annotations and the folder with their pictures."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from effdet_deploy.artifact.labels import categories_of, number_of
from effdet_deploy.detection.images import find_images
from effdet_deploy.detection.pictures import Pictures
from effdet_deploy.errors import DataError
from effdet_deploy.files import read_json_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_REQUIRED = ("images", "annotations", "categories")
_SHOWN_ITEMS = 5
_LONGEST_PATH = 4096
"""The longest path that a system opens; the search for a picture tries every end of a name."""
FOLDER_OPTIONS = "--images DIR for eval and compare, --eval-images DIR for export"
"""How every command names the folder of an annotated set's pictures."""
_FORM = "Correct the file: COCO annotations hold images, annotations and categories."


@dataclass(frozen=True)
class CocoSet:
    """Pictures with their true boxes.

    Attributes:
        document: the annotations in COCO form, limited to the pictures of ``paths``.
        paths: the picture files by COCO image id, in the order of the annotations.
        remarks: sentences about what was left out.
        class_map: the rule for classes that match different categories by name and by id; see
            :func:`~effdet_deploy.evaluation.classmap.join_classes`.
    """

    document: dict[str, Any]
    paths: dict[int, Path]
    remarks: tuple[str, ...] = ()
    class_map: str | Path | None = None

    @property
    def categories(self) -> dict[int, str]:
        """The names of all categories by id."""
        return {each["id"]: each["name"] for each in self.document["categories"]}

    @property
    def pictures(self) -> Pictures:
        """The pictures of the set, in its order."""
        return as_pictures(self.paths.values())

    def named(self, categories: Sequence[int]) -> str:
        """Return the names of categories for a sentence, at most the first few."""
        shown = ", ".join(self.categories[each] for each in categories[:_SHOWN_ITEMS])
        more = len(categories) - _SHOWN_ITEMS
        return f"{shown} and {more} more" if more > 0 else shown

    def __len__(self) -> int:
        return len(self.paths)


def read_coco(
    annotations: Path,
    images: Path | None = None,
    limit: int | None = None,
    class_map: str | Path | None = None,
) -> CocoSet:
    """Read a COCO set.

    Values that COCO files often lack are added: a box without ``iscrowd`` is not a crowd, and one
    without ``area`` has the area width times height. Annotations are numbered anew from 1, since
    pycocotools treats a match with number 0 as no match; ``source_id`` keeps their number in the
    file. A category that only groups other categories and owns no box, as Roboflow writes one, is
    left out.

    Args:
        annotations: the JSON file.
        images: the folder that file names refer to; default: the folder ``images`` beside
            ``annotations`` if it exists, else the folder of ``annotations``.
        limit: use only the first ``limit`` pictures.
        class_map: see :class:`CocoSet`.

    Raises:
        DataError: the file is unreadable, has another form, or has no pictures or boxes; or a
            picture is missing or outside of its folder.
    """
    document = _decoded(annotations, _REQUIRED)
    with _translated(annotations):
        paths = _paths(document, annotations, images, limit)
    return dataset_of(document, paths, annotations, class_map)


def dataset_of(
    document: dict[str, Any],
    paths: dict[int, Path],
    annotations: Path,
    class_map: str | Path | None = None,
) -> CocoSet:
    """Complete annotations in COCO form, as :func:`read_coco` does.

    Args:
        document: the annotations.
        paths: the file of each picture that is used, by its id.
        annotations: where they were read, for messages.
        class_map: see :class:`CocoSet`.

    Raises:
        DataError: an entry is unusable, or no box is left.
    """
    with _translated(annotations):
        boxes = [each for each in document["annotations"] if number_of(each["image_id"]) in paths]
        is_empty = [_is_empty(each) for each in boxes]
        empty = [each for each, nothing in zip(boxes, is_empty, strict=True) if nothing]
        sound = [each for each, nothing in zip(boxes, is_empty, strict=True) if not nothing]
        kept = [_complete(number, each) for number, each in enumerate(sound, start=1)]
        pictures = [each | {"id": number_of(each["id"])} for each in document["images"]]
        names, root = categories_of(document)
        named = [{"id": each, "name": name} for each, name in names.items() if each != root]
        content = {
            "images": [each for each in pictures if each["id"] in paths],
            "annotations": kept,
            "categories": named,
        }
        dataset = CocoSet(
            document | content, paths, _note_on_empty_boxes(empty, len(boxes)), class_map
        )
        unknown = {each["category_id"] for each in kept} - set(dataset.categories)
    if not kept:
        raise DataError(
            f"The annotations '{annotations}' have no box in any of the {len(paths)} pictures.",
            "Use pictures with annotated boxes.",
        )
    if unknown:
        raise DataError(
            f"The annotations '{annotations}' hold boxes of category {min(unknown)}, which their "
            "categories do not name.",
            "Add this category to the list 'categories'.",
        )
    return dataset


def _note_on_empty_boxes(empty: list[dict[str, Any]], total: int) -> tuple[str, ...]:
    if not empty:
        return ()
    named = ", ".join(str(each.get("id", "?")) for each in empty[:_SHOWN_ITEMS])
    more = ", …" if len(empty) > _SHOWN_ITEMS else ""
    said = f"{len(empty)} of {total} boxes are empty or of negative size and were skipped: "
    return (f"{said}annotations {named}{more}.",)


def find_pictures(source: str | Path | None, limit: int | None = None) -> Pictures:
    """Return the pictures of a folder by name, or those that COCO annotations list.

    Args:
        source: a folder, a picture, a pattern or a JSON file, which needs no boxes; None for no
            pictures.
        limit: use only the first ``limit`` pictures.

    Raises:
        DataError: the annotations are unreadable, have another form or no pictures, or a picture
            is missing.
        ImageError: there are no pictures.
    """
    if source is None:
        return Pictures()
    annotations = Path(source)
    if annotations.suffix.lower() != ".json":
        return as_pictures(find_images(source)[:limit])
    document = _decoded(annotations, ("images",))
    with _translated(annotations):
        return as_pictures(list(_paths(document, annotations).values())[:limit])


def as_pictures(paths: Iterable[Path]) -> Pictures:
    """Return files as pictures that are called by their names."""
    found = tuple(paths)
    return Pictures(tuple(path.name for path in found), found)


def _decoded(path: Path, required: tuple[str, ...]) -> dict[str, Any]:
    document = read_json_object(path, "The annotation file", "Name a COCO JSON file.")
    absent = [key for key in required if key not in document]
    if absent or not document["images"]:
        what = f"have no {', '.join(absent)}" if absent else "name no pictures"
        raise DataError(f"The annotations '{path}' {what}.", _FORM)
    return dict(document)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn errors about an entry of the annotations into a DataError that says what is wrong."""
    try:
        yield
    except KeyError as error:
        raise DataError(f"An entry of the annotations '{path}' has no {error}.", _FORM) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"The annotations '{path}' are not in COCO form: {error}.", _FORM
        ) from error


def _paths(
    document: dict[str, Any],
    annotations: Path,
    images: Path | None = None,
    limit: int | None = None,
) -> dict[int, Path]:
    beside = annotations.parent / "images"
    folder = images or (beside if beside.is_dir() else annotations.parent)
    named = document["images"][:limit]
    paths = {number_of(each["id"]): _place_in(folder, each["file_name"]) for each in named}
    if len(paths) < len(named):
        raise DataError(
            f"{len(named)} pictures of '{annotations}' have only {len(paths)} different ids.",
            "Give every picture its own id.",
        )
    missing = [path for path in paths.values() if not is_there(path)]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} pictures of '{annotations}' are missing; the first "
            f"is '{missing[0]}'.",
            "Put them into 'images' beside the annotations, or name their folder: "
            f"{FOLDER_OPTIONS}.",
        )
    if len(set(paths.values())) < len(paths):
        twice = next(path for path, count in Counter(paths.values()).items() if count > 1)
        raise DataError(
            f"Several pictures of '{annotations}' are the same file, '{twice}'.",
            "Put pictures with the same name into the folders that their file_name states, and "
            f"name the folder that contains these folders: {FOLDER_OPTIONS}.",
        )
    return paths


def _place_in(folder: Path, name: object) -> Path:
    r"""Return the path of a picture by its name in annotations, or by an end of that name.

    The name itself is tried first, then its last parts. Annotations come from other machines:
    ``C:\set\images\1.jpg`` or ``/home/me/images/1.jpg`` may be ``1.jpg`` here. The search stays
    inside ``folder``.

    Raises:
        DataError: the name points elsewhere, and the picture is not in ``folder``.
        TypeError: the name is not a text, or is empty or too long.
    """
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_PATH:
        raise TypeError(
            f"a file_name must be a text of 1 to {_LONGEST_PATH} characters, not {name!r:.200}"
        )
    if "\\" not in name and (inside := _inside(folder, name)) and is_there(inside):
        return inside
    parts = PurePosixPath(name.replace("\\", "/")).parts
    ends = (_inside(folder, "/".join(parts[start:])) for start in range(len(parts)))
    found = next((each for each in ends if each and is_there(each)), None)
    if found is None and (found := _inside(folder, name)) is None:
        raise DataError(
            f"The annotations name the picture '{name}', which is not in '{folder}'.",
            f"Name the folder of the picture: {FOLDER_OPTIONS}.",
        )
    return found


def _inside(folder: Path, name: str) -> Path | None:
    path = PurePosixPath(name)
    return None if path.is_absolute() or ".." in path.parts else folder / name


def is_there(path: Path, *, or_folder: bool = False) -> bool:
    """Return whether a file exists that annotations name."""
    # A name may be too long for the system.
    with contextlib.suppress(OSError):
        return path.is_file() or (or_folder and path.is_dir())
    return False


def _is_empty(annotation: dict[str, Any]) -> bool:
    """Return whether a box has no width or height, or a negative one."""
    _, _, width, height = (float(each) for each in annotation["bbox"])
    return math.isfinite(width + height) and (width <= 0 or height <= 0)


def _complete(number: int, annotation: dict[str, Any]) -> dict[str, Any]:
    """Add the values that pycocotools needs; raises ValueError on an invalid box."""
    left, top, width, height = (float(each) for each in annotation["bbox"])
    if not (math.isfinite(left + top + width + height) and width >= 0 <= height):
        said = f"annotation {annotation.get('id', '?')} has the invalid box {annotation['bbox']}"
        raise ValueError(said)
    return annotation | {
        "id": number,
        "source_id": annotation.get("id", number),
        "image_id": number_of(annotation["image_id"]),
        "category_id": number_of(annotation["category_id"]),
        "bbox": [left, top, width, height],
        "area": float(annotation.get("area") or width * height),
        "iscrowd": int(annotation.get("iscrowd") or 0),
    }
