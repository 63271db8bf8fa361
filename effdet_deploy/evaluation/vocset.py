"""Pascal VOC sets: one XML file per picture, as VOC itself, labelImg and CVAT write them.

A file that declares an entity is refused, so no entity is ever expanded.
"""

from __future__ import annotations

import math
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import TreeBuilder
from xml.parsers import expat

from effdet_deploy.detection.images import SUFFIXES
from effdet_deploy.errors import DataError
from effdet_deploy.evaluation.cocoset import FOLDER_OPTIONS, is_there

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

ANNOTATIONS = "Annotations"
_PICTURES = ("JPEGImages", "images")
_SPLITS = "ImageSets"
_FORM = "Correct the file: a VOC annotation has objects with a name and a bndbox of four numbers."


def is_voc(source: Path) -> bool:
    """Return whether a path is a VOC set: its root, a list file, or a folder of XML files only."""
    return is_voc_root(source) or (source.is_dir() and any(source.glob("*.xml")))


def is_voc_root(source: Path) -> bool:
    """Return whether a path is the root of a VOC set, or a list file in it."""
    if source.is_dir():
        return any((source / ANNOTATIONS).glob("*.xml"))
    return source.suffix == ".txt" and _SPLITS in source.parts


def read_voc(
    source: Path, images: Path | None = None, limit: int | None = None
) -> tuple[dict[str, Any], dict[int, Path]]:
    """Read a VOC set as annotations in COCO form, and the picture files by id.

    Objects marked as difficult count as crowds: detecting them is neither right nor wrong. VOC's
    corners are pixels counted from 1, so a box begins one pixel before its xmin and ymin and ends
    at its xmax and ymax. Categories are numbered in the order of their names.

    Args:
        source: the root of the set, with all annotations; a list file in it, such as
            ``ImageSets/Main/val.txt``; or a folder of XML files.
        images: the folder of pictures; default: JPEGImages, images, or the folder of the XML.
        limit: use only the first ``limit`` pictures.

    Raises:
        DataError: a file is unreadable or has another form, or a picture is missing.
    """
    paths: dict[int, Path] = {}
    pictures, objects = [], []
    for number, (file, tree, path) in enumerate(_entries(source, images, limit), start=1):
        paths[number] = path
        size = {side: tree.findtext(f"size/{side}", "0") for side in ("width", "height")}
        pictures.append({"id": number, "file_name": path.name, **size})
        try:
            objects += [
                {"id": f"{file.name}:{place}", "image_id": number, **_object(each)}
                for place, each in enumerate(tree.iterfind("object"), start=1)
            ]
        except ValueError as error:
            raise DataError(
                f"The annotation '{file}' is not in VOC form: {error}.", _FORM
            ) from error
    names = sorted({each["name"] for each in objects})
    ids = {name: number for number, name in enumerate(names, start=1)}
    annotations = [each | {"category_id": ids[each["name"]]} for each in objects]
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return {"images": pictures, "annotations": annotations, "categories": categories}, paths


def voc_pictures(source: Path) -> list[Path]:
    """Return the pictures of a VOC set without reading its objects; raises as :func:`read_voc`."""
    return [path for _, _, path in _entries(source)]


def _entries(
    source: Path, images: Path | None = None, limit: int | None = None
) -> Iterator[tuple[Path, Element, Path]]:
    """Yield the annotation files, their content, and their pictures."""
    files = _files(source)[:limit]
    folders = [images] if images else _folders(files[0])
    for file in files:
        tree = _parsed(file)
        yield file, tree, _picture_of(file, tree.findtext("filename", "").strip(), folders)


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        home = source / ANNOTATIONS if is_voc_root(source) else source
        files = sorted(home.glob("*.xml"))
    else:
        root = source.parents[len(source.parts) - 1 - source.parts.index(_SPLITS)]
        try:
            lines = source.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise DataError(
                f"The list '{source}' cannot be read: {error}.",
                "Name a text file with the name of one annotation per line.",
            ) from error
        # In the list of a class, a number after the name says whether the class is in the picture.
        files = [root / ANNOTATIONS / f"{each.split()[0]}.xml" for each in lines if each.strip()]
    if not files:
        raise DataError(
            f"There are no annotations in '{source}'.", "Name a folder with one XML per picture."
        )
    return files


def _parsed(file: Path) -> Element:
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = _refuse_entity
    try:
        parser.Parse(file.read_bytes(), True)
        return builder.close()
    except (OSError, ValueError, expat.ExpatError) as error:
        raise DataError(f"The annotation '{file}' cannot be read: {error}.", _FORM) from error


def _refuse_entity(name: str, *_others: object) -> None:
    raise ValueError(f"it declares the entity '{name}', which is not allowed")


def _folders(file: Path) -> list[Path]:
    beside = [file.parent.parent / each for each in _PICTURES]
    return [each for each in beside if each.is_dir()] + [file.parent]


def _picture_of(file: Path, named: str, folders: list[Path]) -> Path:
    """Return the picture of an annotation: the named file, or one with the annotation's name."""
    # The named file may be a path of another machine.
    names = [PureWindowsPath(named).name] if named else []
    names += [file.stem + suffix for suffix in sorted(SUFFIXES)]
    ways = (folder / name for folder in folders for name in names)
    found = next((way for way in ways if is_there(way)), None)
    if found is None:
        raise DataError(
            f"The picture of '{file}' is not in '{folders[0]}'.",
            f"Name the folder of the pictures: {FOLDER_OPTIONS}.",
        )
    return found


def _object(tree: Element) -> dict[str, Any]:
    """Return an object as an annotation without ids; raises ValueError if it is not valid."""
    name = tree.findtext("name", "").strip()
    if not name:
        raise ValueError("an object has no name")
    x1, y1, x2, y2 = (_side(tree, each) for each in ("xmin", "ymin", "xmax", "ymax"))
    return {
        "name": name,
        "bbox": [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1],
        "iscrowd": int(tree.findtext("difficult", "0").strip() == "1"),
    }


def _side(tree: Element, name: str) -> float:
    text = tree.findtext(f"bndbox/{name}")
    if text is None:
        raise ValueError(f"an object has no {name}")
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{name} is {text}")
    return value
