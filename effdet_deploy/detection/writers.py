"""Writers of single formats; :mod:`effdet_deploy.detection.formats` opens them by name."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from effdet_deploy.detection.naming import Names, safe_name
from effdet_deploy.files import deliver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import ClassSpec
    from effdet_deploy.detection.detections import Detections
    from effdet_deploy.detection.naming import Place

BY = "effdet-deploy detect"
"""The author of a file, if its format has room for that."""
JPEG_QUALITY = 92
CSV_COLUMNS = (
    *("file", "width", "height", "name", "label", "category_id", "score"),
    *("x1", "y1", "x2", "y2"),
)
_LABELME = "5.5.0"
"""The version of labelme's format that is written; labelme reads it but does not check it."""
_DECIMALS = 3


@dataclass(frozen=True, eq=False)
class Labeled:
    """A picture with its detections.

    Attributes:
        path: its file, as the user named it.
        place: its names within the set of pictures.
        size: (width, height) as it is shown.
        detections: the detections in it.
        image: its pixels, uint8 ``[H,W,C]``; only crops need them.
    """

    path: Path
    place: Place
    size: tuple[int, int]
    detections: Detections
    image: NDArray[np.uint8] | None = None


class Writer(Protocol):
    """Writes results in one format."""

    def add(self, picture: Labeled) -> None:
        """Write a picture."""

    def finish(self, classes: Sequence[ClassSpec]) -> None:
        """Write the end of the files, and move them to their places."""


class _File:
    """A text file that is being written."""

    def __init__(self, target: Path, scratch: Path) -> None:
        self.target = target
        self.staged = scratch / target.name
        self.stream = _opened(self.staged)

    def deliver(self) -> None:
        self.stream.close()
        deliver(self.staged, self.target)


class _Rows:
    """A JSON list that is being written, with one entry per line."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.count = 0

    def add(self, row: object) -> None:
        # The row is written in one step, so that Ctrl-C comes before or after it.
        text = json.dumps(row, ensure_ascii=False)
        self.stream.write(f"{',' if self.count else '['}\n{text}")
        self.count += 1

    def end(self) -> None:
        self.stream.write("\n]" if self.count else "[]")


class Csv:
    """One row per detection, below a header; values with commas, quotes or lines are quoted."""

    def __init__(self, output: Path, scratch: Path) -> None:
        self._file = _File(output / "detections.csv", scratch)
        self._rows = csv.writer(self._file.stream)
        self._rows.writerow(CSV_COLUMNS)

    def add(self, picture: Labeled) -> None:
        """Write a picture's rows; a picture without detections has no rows."""
        for each in picture.detections.to_json():
            box = [round(side, _DECIMALS) for side in each["box"]]
            named = [each[column] for column in ("name", "label", "category_id", "score")]
            self._rows.writerow([picture.path, *picture.size, *named, *box])

    def finish(self, classes: Sequence[ClassSpec]) -> None:  # noqa: ARG002
        """Move the file to its place."""
        self._file.deliver()


class Coco:
    """COCO in two files: a dataset for other tools, and the list of results for ``loadRes``.

    Annotations of the dataset have a key ``score`` beside COCO's own. File names are paths from the
    common folder of all pictures.
    """

    def __init__(self, output: Path, scratch: Path) -> None:
        self._dataset = _File(output / "detections.coco.json", scratch)
        self._results = _File(output / "detections.coco-results.json", scratch)
        # Pictures and annotations are two lists of one file, which grow together.
        self._later = _opened(scratch / "annotations", "w+")
        self._images = _Rows(self._dataset.stream)
        self._annotations = _Rows(self._later)
        self._found = _Rows(self._results.stream)
        self._dataset.stream.write(f'{{"info": {json.dumps({"description": BY})},\n"images": ')

    def add(self, picture: Labeled) -> None:
        """Write a picture, its annotations and its results."""
        width, height = picture.size
        number = picture.place.number
        self._images.add(
            {"id": number, "file_name": picture.place.file, "width": width, "height": height}
        )
        for row in picture.detections.to_coco(number):
            self._found.add(row)
            area = round(row["bbox"][2] * row["bbox"][3], _DECIMALS)
            extra = {"area": area, "iscrowd": 0, "segmentation": []}
            self._annotations.add({"id": self._annotations.count + 1, **row, **extra})

    def finish(self, classes: Sequence[ClassSpec]) -> None:
        """Join the lists and move both files to their places."""
        for each in (self._images, self._annotations, self._found):
            each.end()
        stream = self._dataset.stream
        stream.write(',\n"annotations": ')
        self._later.seek(0)
        shutil.copyfileobj(self._later, stream)
        self._later.close()
        named = [
            {"id": each.category_id, "name": each.name, "supercategory": ""} for each in classes
        ]
        categories = json.dumps(named, ensure_ascii=False)
        stream.write(f',\n"categories": {categories},\n"licenses": []}}\n')
        self._dataset.deliver()
        self._results.deliver()


class _Folder:
    """A folder with one file per picture; every file is complete when it appears."""

    def __init__(self, output: Path, scratch: Path, name: str) -> None:
        self.home = output / name
        self._scratch = scratch
        self.home.mkdir(parents=True, exist_ok=True)

    def write(self, place: str, text: str) -> None:
        staged = self._scratch / "staged"
        with _opened(staged) as stream:
            stream.write(text)
        self.take(staged, place)

    def take(self, staged: Path, place: str) -> None:
        target = self.home / place
        target.parent.mkdir(parents=True, exist_ok=True)
        # The file is new in a folder of ours, so no old file could be lost.
        staged.replace(target)


class Yolo:
    """``labels/PICTURE.txt`` per picture, and ``data.yaml`` with the class names.

    A line is the class index, then center, width and height as fractions of the picture, and the
    score if requested. A picture without detections has an empty file.
    """

    def __init__(self, output: Path, scratch: Path, *, scores: bool = False) -> None:
        self._folder = _Folder(output, scratch, "yolo-conf" if scores else "yolo")
        self._scores = scores

    def add(self, picture: Labeled) -> None:
        """Write a picture's file."""
        found = picture.detections
        corners = found.boxes.astype(np.float64) / np.array(picture.size * 2)
        low, high = corners[:, :2], corners[:, 2:]
        columns = [(low + high) / 2, high - low]
        if self._scores:
            columns.append(found.scores[:, None])
        lines = [
            f"{label} {' '.join(f'{each:.6f}' for each in row)}\n"
            for label, row in zip(found.labels, np.hstack(columns), strict=True)
        ]
        self._folder.write(f"labels/{picture.place.stem}.txt", "".join(lines))

    def finish(self, classes: Sequence[ClassSpec]) -> None:
        """Write ``data.yaml``, which looks for pictures in ``images`` beside ``labels``."""
        names = [f"  {index}: {_yaml_text(each.name)}\n" for index, each in enumerate(classes)]
        head = f"# Written by {BY}.\ntrain: images\nval: images\nnc: {len(classes)}\nnames:"
        self._folder.write("data.yaml", "".join([head, "\n" if names else " {}\n", *names]))


class Labelme:
    """``labelme/PICTURE.json`` per picture: rectangles with their ``score``.

    A file names its picture by the path from the file to the picture.
    """

    def __init__(self, output: Path, scratch: Path) -> None:
        self._folder = _Folder(output, scratch, "labelme")

    def add(self, picture: Labeled) -> None:
        """Write a picture's file."""
        place = f"{picture.place.stem}.json"
        width, height = picture.size
        shapes = [
            {
                "label": each["name"],
                "points": [each["box"][:2], each["box"][2:]],
                "group_id": None,
                "description": "",
                "shape_type": "rectangle",
                "flags": {},
                "mask": None,
                "score": each["score"],
            }
            for each in picture.detections.to_json()
        ]
        document: dict[str, Any] = {
            "version": _LABELME,
            "flags": {},
            "shapes": shapes,
            "imagePath": _relative_path(picture.path, (self._folder.home / place).parent),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        self._folder.write(place, json.dumps(document, ensure_ascii=False, indent=2) + "\n")

    def finish(self, classes: Sequence[ClassSpec]) -> None:
        """Do nothing: every file is already written."""


class Crops:
    """``crops/CLASS/PICTURE_N.jpg``: the part inside a box; N counts the boxes of a picture."""

    def __init__(self, output: Path, scratch: Path) -> None:
        self._folder = _Folder(output, scratch, "crops")
        self._staged = scratch / "crop.jpg"
        self._names = Names()
        self._folders: dict[str, str] = {}

    def add(self, picture: Labeled) -> None:
        """Cut out and write the detections of a picture."""
        if picture.image is None:
            return
        # A picture that was decoded at a smaller size gives smaller crops.
        found = picture.detections.resized(picture.size[::-1], picture.image.shape[:2])
        for count, each in enumerate(found.to_json(), start=1):
            (x1, y1), (x2, y2) = np.floor(each["box"][:2]), np.ceil(each["box"][2:])
            cut = picture.image[int(y1) : int(y2), int(x1) : int(x2)]
            pixels = cut[..., 0] if cut.shape[2] == 1 else cut
            name = each["name"]
            if name not in self._folders:
                self._folders[name] = self._names.free(safe_name(name))
            Image.fromarray(pixels).convert("RGB").save(self._staged, quality=JPEG_QUALITY)
            self._folder.take(
                self._staged, f"{self._folders[name]}/{picture.place.stem}_{count}.jpg"
            )

    def finish(self, classes: Sequence[ClassSpec]) -> None:
        """Do nothing: every file is already written."""


def _opened(path: Path, mode: str = "w") -> IO[str]:
    # Bytes of a name that are not UTF-8 are escaped, as in JSON. The csv module ends lines itself.
    return path.open(mode, encoding="utf-8", errors="backslashreplace", newline="")


def _yaml_text(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in quoted)


def _relative_path(path: Path, start: Path) -> str:
    try:
        return Path(os.path.relpath(path.absolute(), start.resolve())).as_posix()
    except ValueError:  # Windows: on another drive
        return path.absolute().as_posix()
