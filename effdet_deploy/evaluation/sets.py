"""Reading of annotated sets in COCO, YOLO and Pascal VOC form, for COCO's evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from effdet_deploy.evaluation.classmap import NAMES_ALONE
from effdet_deploy.evaluation.cocoset import as_pictures, dataset_of, find_pictures, read_coco
from effdet_deploy.evaluation.vocset import is_voc, is_voc_root, read_voc, voc_pictures
from effdet_deploy.evaluation.yoloset import SUFFIXES, read_yolo, yolo_pictures

if TYPE_CHECKING:
    from effdet_deploy.detection.pictures import Pictures
    from effdet_deploy.evaluation.cocoset import CocoSet


def read_set(
    source: Path,
    images: Path | None = None,
    limit: int | None = None,
    class_map: str | Path | None = None,
) -> CocoSet:
    """Read an annotated set: COCO annotations, YOLO's data.yaml, or a VOC folder or list.

    Args:
        source: the file or folder.
        images: the folder of the pictures, if they are not in their usual place.
        limit: use only the first ``limit`` pictures.
        class_map: see :class:`~effdet_deploy.evaluation.cocoset.CocoSet`. VOC has no ids, so its
            classes are matched by name.

    Raises:
        DataError: the set is unreadable, has another form, or has no pictures or boxes.
        MissingPackageError: PyYAML is not installed, for a YOLO set.
    """
    if source.suffix.lower() in SUFFIXES:
        return dataset_of(*read_yolo(source, images, limit), source, class_map)
    if is_voc(source):
        return dataset_of(*read_voc(source, images, limit), source, class_map or NAMES_ALONE)
    return read_coco(source, images, limit, class_map)


def read_pictures(source: str | Path | None, limit: int | None = None) -> Pictures:
    """Return the pictures of a folder or of an annotated set, without reading its boxes.

    Args:
        source: a folder, a picture, a pattern, COCO annotations, YOLO's data.yaml, a VOC root or
            list; None for no pictures.
        limit: use only the first ``limit`` pictures.

    Raises:
        DataError: the set is unreadable, has another form or no pictures.
        ImageError: there are no pictures.
    """
    path = Path(source or "")
    if path.suffix.lower() in SUFFIXES:
        return as_pictures(yolo_pictures(path)[:limit])
    if source is not None and is_voc_root(path):
        return as_pictures(voc_pictures(path)[:limit])
    return find_pictures(source, limit)
