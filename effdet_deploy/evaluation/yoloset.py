"""YOLO sets of Ultralytics and Roboflow: data.yaml, pictures, and one text file per picture.

The parser is our own, because supervision's parser reads only one folder of pictures at a time,
decodes every picture for its size, and needs OpenCV, Matplotlib and SciPy.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effdet_deploy.artifact.labels import read_labels
from effdet_deploy.detection.images import find_images, size_of
from effdet_deploy.errors import DataError, ImageError
from effdet_deploy.evaluation.cocoset import FOLDER_OPTIONS, is_there
from effdet_deploy.files import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SUFFIXES = (".yaml", ".yml")
MEASURED, CALIBRATED = ("val", "test", "train"), ("train", "val", "test")
"""In what order of preference the parts of a set are used: for measuring, and for calibrating."""
_NUMBERS_OF_A_BOX = 5
"""The class, the center, the width and the height."""
_SLACK = 0.01
"""How far Ultralytics lets a fraction lie outside of the picture."""
_FORM = "Correct the file: YOLO's data.yaml names train or val, and the names of the classes."
_ROWS = "A line is a class and four fractions (center, width, height), or a polygon."


def read_yolo(
    source: Path, images: Path | None = None, limit: int | None = None
) -> tuple[dict[str, Any], dict[int, Path]]:
    """Read a YOLO set as annotations in COCO form, and the picture files by id.

    The labels of ``images/a.jpg`` are in ``labels/a.txt``; a picture without such a file has no
    objects. A row is a class and a box, or a class and a polygon, which is replaced by its box. The
    category id of a class is its index plus one.

    Args:
        source: data.yaml. The part val is used if there is one, else test, else train.
        images: a folder of pictures to use instead.
        limit: use only the first ``limit`` pictures.

    Raises:
        DataError: a file is unreadable or has another form, or a part is missing.
    """
    names = read_labels(source).names
    document = _document(source)
    with_points = "kpt_shape" in document
    found = _pictures(source, document, MEASURED) if images is None else find_images(images)
    paths = dict(enumerate(found[:limit], start=1))
    pictures, annotations = [], []
    for number, path in paths.items():
        opened = size_of(path)
        if opened is None:
            raise DataError(f"The picture '{path}' cannot be read.", "Save or download it again.")
        width, height = opened[0]
        pictures.append({"id": number, "file_name": path.name, "width": width, "height": height})
        for place, label, (x1, y1, x2, y2) in _boxes(_labels_of(path), len(names), with_points):
            box = [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height]
            annotations.append(
                {"id": place, "image_id": number, "category_id": label + 1, "bbox": box}
            )
    categories = [{"id": index, "name": name} for index, name in enumerate(names, start=1)]
    return {"images": pictures, "annotations": annotations, "categories": categories}, paths


def yolo_pictures(source: Path) -> list[Path]:
    """Return the pictures that a YOLO set trains on; raises as :func:`read_yolo`."""
    return _pictures(source, _document(source), CALIBRATED)


def _document(source: Path) -> dict[str, Any]:
    try:
        document = parse_yaml(source.read_text(encoding="utf-8-sig"), "reading a YOLO set")
    except (OSError, ValueError) as error:
        raise DataError(f"The data file '{source}' cannot be read: {error}.", _FORM) from error
    if not isinstance(document, dict):
        raise DataError(f"The data file '{source}' does not hold keys with values.", _FORM)
    return document


def _pictures(source: Path, document: Mapping[str, Any], parts: Sequence[str]) -> list[Path]:
    part = next((each for each in parts if document.get(each)), None)
    if part is None:
        raise DataError(
            f"The data file '{source}' names no pictures: it has no {' or '.join(parts)}.", _FORM
        )
    given = document[part]
    entries = given if isinstance(given, list) else [given]
    home = source.parent
    roots = [home / str(document.get("path") or ""), home]
    found: dict[Path, None] = {}
    for each in map(str, entries):
        # Roboflow writes ../train/images although train/images lies beside data.yaml.
        ways = [root / way for root in roots for way in (each, each.removeprefix("../"))]
        place = next((way for way in ways if is_there(way, or_folder=True)), None)
        if place is None:
            raise DataError(
                f"The part {part} of '{source}' does not exist: '{ways[0]}'.",
                "Correct the path in the file, or name the folder of the pictures: "
                f"{FOLDER_OPTIONS}.",
            )
        found |= dict.fromkeys(_listed(place, roots) if place.is_file() else _find_in_folder(place))
    return list(found)


def _find_in_folder(folder: Path) -> list[Path]:
    try:
        return find_images(folder)
    except ImageError as error:
        raise DataError(error.cause, error.remedy) from error


def _listed(file: Path, roots: Sequence[Path]) -> Iterator[Path]:
    """Yield the pictures in a text file, relative to the file's folder or the set's."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(
            f"The list '{file}' cannot be read: {error}.", "Write one picture per line, in UTF-8."
        ) from error
    for line in filter(None, map(str.strip, lines)):
        ways = [root / line for root in (file.parent, *roots)]
        found = next((way for way in ways if is_there(way)), None)
        if found is None:
            raise DataError(
                f"The list '{file}' names '{line}', which does not exist.", "Correct this line."
            )
        yield found


def _labels_of(picture: Path) -> Path:
    """Return the path of a picture's labels: the last folder ``images`` becomes ``labels``."""
    parts = list(picture.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _boxes(
    file: Path, classes: int, with_points: bool
) -> Iterator[tuple[str, int, tuple[float, float, float, float]]]:
    """Yield ``FILE:LINE`` of every row, its class, and the corners of its box as fractions."""
    if not file.is_file():
        return
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"The labels '{file}' cannot be read: {error}.", _ROWS) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            label, corners = _row(line, classes, with_points)
        except ValueError as error:
            raise DataError(
                f"Line {number} of the labels '{file}' is not in YOLO form: {error}.",
                _ROWS,
            ) from error
        yield f"{file.name}:{number}", label, corners


def _row(
    line: str, classes: int, with_points: bool
) -> tuple[int, tuple[float, float, float, float]]:
    """Return the class and the corners of a row; raises ValueError if it is not valid."""
    label, *values = (float(each) for each in line.split())
    if not label.is_integer() or not 0 <= label < classes:
        raise ValueError(f"the class is {label:g}, but it must be from 0 to {classes - 1}")
    if with_points:
        values = values[: _NUMBERS_OF_A_BOX - 1]
    if not all(math.isfinite(each) and -_SLACK <= each <= 1 + _SLACK for each in values):
        raise ValueError("a number is not a fraction from 0 to 1")
    if len(values) == _NUMBERS_OF_A_BOX - 1:
        x, y, width, height = values
        return int(label), (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if len(values) <= _NUMBERS_OF_A_BOX or len(values) % 2:
        raise ValueError(f"it has {len(values) + 1} numbers")
    across, down = values[::2], values[1::2]
    return int(label), (min(across), min(down), max(across), max(down))
