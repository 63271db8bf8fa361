"""The formats in which results are written for other tools: COCO, YOLO, CSV, labelme; and crops.

Every format is written while pictures are processed, without holding results in memory. A format
with one file is written to a private folder, and the file is moved to its place at the end. A
format with one file per picture fills its own folder, which must be empty: people correct labels by
hand, and no run may replace them.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effdet_deploy.artifact.spec import ClassSpec
from effdet_deploy.detection.writers import Coco, Crops, Csv, Labelme, Yolo
from effdet_deploy.errors import EffdetDeployError, UnknownNameError, UsageError
from effdet_deploy.files import staging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from effdet_deploy.detection.writers import Labeled, Writer


@dataclass(frozen=True)
class Form:
    """How a format is opened, its title, and its files or its folder in the output."""

    open: Callable[[Path, Path], Writer]
    title: str
    files: tuple[str, ...] = ()
    folder: str = ""


CROPS = "crops"
FORMS = {
    "coco": Form(Coco, "COCO", ("detections.coco.json", "detections.coco-results.json")),
    "yolo": Form(Yolo, "YOLO labels", folder="yolo"),
    "yolo-conf": Form(
        lambda *places: Yolo(*places, scores=True), "YOLO labels with scores", folder="yolo-conf"
    ),
    "csv": Form(Csv, "CSV", ("detections.csv",)),
    "labelme": Form(Labelme, "labelme's files", folder="labelme"),
}
"""The formats by name. ``json`` is not one of them: ``outputs.py`` writes it."""
_ALL = FORMS | {CROPS: Form(Crops, "crops", folder="crops")}
JSON = "json"


def read_formats(text: str) -> tuple[str, ...]:
    """Read a list of formats such as ``json,coco``, without repetitions.

    Raises:
        UnknownNameError: a format is unknown.
    """
    names = tuple(dict.fromkeys(each.strip().lower() for each in text.split(",")))
    for each in names:
        if each not in (JSON, *FORMS):
            raise UnknownNameError("format", each, (JSON, *FORMS))
    return names


def require_free(names: Sequence[str], output: Path) -> None:
    """Check that the folders of formats are absent or empty, before any work.

    Raises:
        UsageError: a folder has files, which may be labels that were corrected by hand.
    """
    for each in names:
        folder = output / _ALL[each].folder if each in _ALL and _ALL[each].folder else None
        if folder is None or not folder.exists():
            continue
        if not folder.is_dir() or any(folder.iterdir()):
            raise UsageError(
                f"The folder '{folder}' already has files, which are never replaced.",
                "Name another directory with --output, or remove this folder.",
            )


def result_files(names: Sequence[str], output: Path) -> list[Path]:
    """Return the files that formats write outside of their own folders."""
    return [output / file for each in names if each in _ALL for file in _ALL[each].files]


def places_said(names: Sequence[str], output: Path) -> list[str]:
    """Return where the formats are written, as parts of a sentence."""
    forms = [_ALL[each] for each in names if each in _ALL]
    return [f"{each.title} in {output / (each.folder or each.files[0])}" for each in forms]


@contextlib.contextmanager
def writing(
    names: Sequence[str], output: Path, classes: Sequence[ClassSpec]
) -> Iterator[Callable[[Labeled], None]]:
    """Give a function that writes a picture's results in all formats; at the end, finish the files.

    The files are also finished if the work is interrupted or fails: finished results are kept.

    Args:
        names: names of :data:`FORMS`, and :data:`CROPS`; other names, such as ``json``, are
            ignored.
        output: the directory to write to.
        classes: the model's classes; if the model names no classes, those in the results are used.
    """
    wanted = [_ALL[each] for each in names if each in _ALL]
    if not wanted:
        yield lambda _picture: None
        return
    known = list(classes)
    with staging(output / "detections") as scratch:
        writers: list[Writer] = []
        for number, form in enumerate(wanted):
            own = scratch / str(number)
            own.mkdir()
            writers.append(form.open(output, own))

        def add(picture: Labeled) -> None:
            found = picture.detections
            seen = zip(found.names, found.category_ids, strict=True)
            known.extend(ClassSpec(*each) for each in itertools.islice(seen, len(known), None))
            for each in writers:
                each.add(picture)

        try:
            yield add
        except (KeyboardInterrupt, EffdetDeployError):
            _finish(writers, known)
            raise
        _finish(writers, known)


def _finish(writers: Sequence[Writer], classes: Sequence[ClassSpec]) -> None:
    for each in writers:
        each.finish(classes)
