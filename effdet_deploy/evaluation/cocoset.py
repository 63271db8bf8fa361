"""An evaluation set: COCO annotations and the folder that their pictures stand in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effdet_deploy.errors import DataError
from effdet_deploy.files import read_json_object

if TYPE_CHECKING:
    from pathlib import Path

_REQUIRED = ("images", "annotations", "categories")


@dataclass(frozen=True)
class CocoSet:
    """Pictures with their true boxes.

    Attributes:
        document: the annotations in COCO form, restricted to the pictures of ``paths``.
        paths: the file of each picture by its COCO image id, in the order of the annotations.
    """

    document: dict[str, Any]
    paths: dict[int, Path]

    @property
    def categories(self) -> dict[int, str]:
        """The name of every category by its id."""
        return {int(each["id"]): str(each["name"]) for each in self.document["categories"]}

    def __len__(self) -> int:
        return len(self.paths)


def read_coco(annotations: Path, images: Path | None = None, limit: int | None = None) -> CocoSet:
    """Read a COCO set.

    Args:
        annotations: the JSON file.
        images: the folder that its file names are relative to; default the folder ``images``
            beside ``annotations`` where there is one, else the folder of ``annotations``.
        limit: use only the first so many pictures.

    Raises:
        DataError: the file is unreadable, of another form or without pictures or boxes, or a
            picture is missing.
    """
    document = _decoded(annotations)
    beside = annotations.parent / "images"
    folder = images or (beside if beside.is_dir() else annotations.parent)
    paths = {int(each["id"]): folder / each["file_name"] for each in document["images"][:limit]}
    missing = [path for path in paths.values() if not path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} pictures of '{annotations}' are missing, the first "
            f"is '{missing[0]}'.",
            "Put them into 'images' beside the annotations, or name their folder: --images DIR for "
            "eval and compare, --eval-images DIR for export.",
        )
    kept = [each for each in document["annotations"] if int(each["image_id"]) in paths]
    if not kept:
        raise DataError(
            f"The annotations '{annotations}' hold no boxes for {len(paths)} pictures.",
            "Accuracy needs pictures with annotated boxes.",
        )
    pictures = [each for each in document["images"] if int(each["id"]) in paths]
    return CocoSet(document | {"images": pictures, "annotations": kept}, paths)


def _decoded(path: Path) -> dict[str, Any]:
    document = read_json_object(path, "The annotation file", "Name a COCO JSON file.")
    absent = [key for key in _REQUIRED if key not in document]
    if absent or not document["images"]:
        what = f"have no {', '.join(absent)}" if absent else "name no pictures"
        raise DataError(
            f"The annotations '{path}' {what}.",
            "COCO annotations hold images, annotations and categories.",
        )
    return dict(document)
