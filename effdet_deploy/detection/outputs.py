"""What becomes of pictures in files: annotated copies, and a document of what was found."""

from __future__ import annotations

import contextlib
import csv
import os
import sys
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from effdet_deploy.detection.fonts import unwritten
from effdet_deploy.detection.formats import CROPS, writing
from effdet_deploy.detection.images import UNDECODABLE, find_images
from effdet_deploy.detection.naming import MOST_BYTES, Names, places_of
from effdet_deploy.detection.pipeline import in_threads
from effdet_deploy.detection.thresholds import shown_thresholds
from effdet_deploy.detection.tiling import stream_tiled
from effdet_deploy.detection.writers import BY, JPEG_QUALITY, Labeled
from effdet_deploy.errors import DataError, ImageError, UnknownNameError, UsageError
from effdet_deploy.files import deliver, require_writable_target, staging

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from effdet_deploy.detection.detector import Detector
    from effdet_deploy.detection.pipeline import Outcome
    from effdet_deploy.detection.thresholds import ScoreThreshold
    from effdet_deploy.detection.tiling import Tiles

_SAVED_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
"""Of formats that have room for the mark, by which a later run knows a copy from a picture."""
_SOFTWARE = 0x0131
"""The EXIF tag of the program that wrote a picture."""


def pictures_of(inputs: Sequence[str], output: Path, listed: Sequence[str] = ()) -> list[Path]:
    """Return the pictures that inputs name, each once.

    Args:
        inputs: pictures, folders or patterns.
        output: the folder of the results. What an earlier run wrote there is left out where it lies
            inside a folder that is searched.
        listed: the same, out of a list; what is not there is a picture that cannot be read, since
            lists outlive files.

    Raises:
        ImageError: an input names no picture.
        UsageError: there is no input.
    """
    if not inputs and not listed:
        raise UsageError(
            "No picture is named.", "Name pictures or folders, or a list of them with --from FILE."
        )
    home = output.resolve()
    found: dict[Path, None] = {}
    for place, each in enumerate((*inputs, *listed)):
        has_copies = Path(each).is_dir() and Path(each).resolve() != home
        try:
            pictures = find_images(each)
        except ImageError:
            if place < len(inputs):
                raise
            pictures = [Path(each)]
        for picture in pictures:
            if not (has_copies and picture.resolve().is_relative_to(home)):
                found[picture] = None
    return list(found)


def read_list(source: str | None) -> list[str]:
    """Return the inputs that a file lists, one a line; between zero bytes where it has any.

    Args:
        source: a file, or ``-`` for standard input; None for no list.

    Raises:
        DataError: it cannot be read, or lists nothing.
    """
    if source is None:
        return []
    try:
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise DataError(
            f"The list '{source}' cannot be read: {error.strerror}.",
            "Name a text file with one picture a line, or - for standard input.",
        ) from error
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    listed = [os.fsdecode(each) for each in lines if each.strip()]
    if not listed:
        raise DataError(f"The list '{source}' is empty.", "It has one picture a line.")
    return listed


def copies_of(pictures: Sequence[Path], output: Path) -> dict[Path, Path]:
    """Pair each picture with the file its annotated copy goes to; no copy is a picture given.

    Args:
        pictures: the files.
        output: the folder of the copies.

    Raises:
        UsageError: an annotated copy would replace a picture that was given, or another file that
            is no copy of an earlier run.
    """
    names = Names()
    copies: dict[Path, Path] = {}
    for each in pictures:
        suffix = each.suffix if each.suffix.lower() in _SAVED_SUFFIXES else ".png"
        copies[each] = output / names.free(each.stem, suffix, MOST_BYTES)
    given = {picture.resolve() for picture in copies}
    for picture, copy in copies.items():
        if copy.resolve() in given or not _is_free(copy):
            raise UsageError(
                f"The annotated copy of '{picture}' would replace the picture '{copy}'.",
                "Choose another directory with --output, or make none with --no-annotate.",
            )
    return copies


def _is_free(copy: Path) -> bool:
    """Tell whether nothing stands at ``copy``, or what an earlier run wrote there."""
    try:
        with Image.open(copy) as picture:
            return picture.getexif().get(_SOFTWARE) == BY
    except (FileNotFoundError, NotADirectoryError):
        return True
    except UNDECODABLE:
        return False


def require_directory(output: Path) -> None:
    """Check that ``output`` is a directory that can be written to, or can be made.

    Raises:
        UsageError: it is a file, or stands where nothing can be written.
    """
    existing = next(each for each in (output, *output.parents) if each.exists())
    if not existing.is_dir():
        raise UsageError(
            f"The output '{output}' is no directory: '{existing}' is a file.", "Choose another."
        )
    require_writable_target(existing / "detections.json")


def shown_threshold(detector: Detector, asked: ScoreThreshold | None) -> ScoreThreshold:
    """Return the score below which nothing is shown: ``asked``, else 0.3 or the model's floor.

    Raises:
        UsageError: below the model's floor, or not within 0-1; or the model has no such class.
    """
    shown = shown_thresholds(asked, detector.spec.output.score_threshold)
    detector.checked_threshold(shown)
    return shown


def about_precision(detector: Detector, name: str) -> str:
    """Say that a model of this name is computed otherwise than in its own precision; else empty."""
    said, computed = detector.spec.precision.kind, detector.runtime.precision
    if said == computed:
        return ""
    return (
        f"{name} is an {said.upper()} file; this {detector.runtime.device} computes it in "
        f"{computed.upper()}."
    )


def chosen_classes(text: str | None, detector: Detector) -> tuple[str, ...]:
    """Read names of classes, separated by commas; a name with a comma stands in double quotes.

    None names no class.

    Raises:
        UnknownNameError: the model has no class of that name.
    """
    if text is None:
        return ()
    known = [each.name for each in detector.spec.classes]
    if text in known:
        return (text,)
    asked = [each.strip() for each in next(csv.reader([text], skipinitialspace=True))]
    for each in asked:
        # An engine without a sidecar counts its classes.
        if each not in known and (known or not each.isdecimal()):
            raise UnknownNameError("class", each, known)
    return tuple(dict.fromkeys(asked))


@dataclass(frozen=True)
class Wanted:
    """What is made of pictures that are detected in.

    Attributes:
        output: the directory of everything.
        forms: of :data:`effdet_deploy.detection.formats.FORMS`, and crops.
        copies: where the annotated copy of each picture goes; of others there is none.
        classes: the names of those that count; all where there is none.
        tiles: how large pictures are cut; None to resize each as a whole.
        font: what class names are drawn with before any other.
        fast_decode: see :meth:`Detector.stream`; copies and crops have the size that JPEGs are
            decoded at.
    """

    output: Path
    forms: tuple[str, ...] = ()
    copies: Mapping[Path, Path] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    tiles: Tiles | None = None
    font: Path | None = None
    fast_decode: bool = False


def describe(detector: Detector, threshold: ScoreThreshold, wanted: Wanted) -> dict[str, Any]:
    """Return what the document for JSON says beside the rows of its pictures or videos."""
    runtime = detector.runtime
    return {
        "backend": runtime.backend,
        "device": runtime.device,
        "precision": runtime.precision,
        "score_threshold": threshold,
        **({"classes": list(wanted.classes)} if wanted.classes else {}),
        **({"tiles": asdict(wanted.tiles)} if wanted.tiles else {}),
    }


def detect_files(
    detector: Detector,
    pictures: Sequence[Path],
    threshold: ScoreThreshold,
    wanted: Wanted,
    tell: Callable[[dict[str, Any]], None],
) -> None:
    """Detect in picture files and write what is wanted.

    Args:
        detector: the model.
        pictures: the files.
        threshold: drop detections below it; see :meth:`Detector.detect`.
        wanted: what is written.
        tell: given a row for JSON of every picture that is done.
    """
    keep = bool(wanted.copies) or CROPS in wanted.forms
    if wanted.tiles:
        stream = stream_tiled(
            detector, pictures, wanted.tiles, score_threshold=threshold, keep_image=keep
        )
    else:
        stream = detector.stream(
            pictures,
            score_threshold=threshold,
            keep_image=keep,
            fast_decode=wanted.fast_decode,
        )
    places = places_of(pictures)
    with (
        contextlib.closing(stream) as outcomes,
        writing(wanted.forms, wanted.output, detector.spec.classes) as add,
    ):
        for outcome, row in in_threads(partial(_annotated, wanted), outcomes, 1):
            source, found, size = outcome.source, outcome.detections, outcome.size
            if found is not None and size is not None:
                add(Labeled(source, places[source], size[::-1], found, outcome.image))
            tell(row)


def _annotated(wanted: Wanted, outcome: Outcome) -> tuple[Outcome, dict[str, Any]]:
    """Write the annotated copy and say what is on it, or what was wrong with the picture."""
    found = outcome.detections
    if found is None or outcome.size is None:
        return outcome, {"file": str(outcome.source), "error": str(outcome.error)}
    if wanted.classes:
        found = found.only([k for k, name in enumerate(found.names) if name in wanted.classes])
    height, width = outcome.size
    row: dict[str, Any] = {"file": str(outcome.source), "width": width, "height": height}
    copy = wanted.copies.get(outcome.source)
    if copy is not None and outcome.image is not None:
        drawn = found.resized(outcome.size, outcome.image.shape[:2]).draw(
            outcome.image, wanted.font
        )
        mark = Image.Exif()
        mark[_SOFTWARE] = BY
        with staging(copy) as directory:
            staged = directory / copy.name
            drawn.save(staged, quality=JPEG_QUALITY, exif=mark)
            deliver(staged, copy)
        row["annotated"] = str(copy)
    row |= {"found": str(found), "detections": found.to_json()}
    return replace(outcome, detections=found), row


def summarize(images: Sequence[Mapping[str, Any]]) -> str:
    """Return how much was found, of the ``images`` of :func:`detect_files`."""
    done = [each for each in images if "error" not in each]
    count = sum(len(each["detections"]) for each in done)
    return f"Found {_counted(count, 'detection')} in {_counted(len(done), 'picture')}"


def about_letters(images: Sequence[Mapping[str, Any]], font: Path | None) -> str:
    """Say which class names on ``images`` had to be escaped; empty where none had."""
    found = sorted({each["name"] for image in images for each in image.get("detections", ())})
    odd = unwritten(found, font)
    if not odd:
        return ""
    more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
    return (
        f"No font here has all letters of '{odd[0]}'{more}: they are escaped on the pictures. "
        "Name a font that has them with --font FILE."
    )


def require_all_read(images: Sequence[Mapping[str, Any]], *, in_json: bool = True) -> None:
    """Check that no picture of :func:`detect_files` was unusable; ``in_json`` lists each that was.

    Raises:
        ImageError: one was.
    """
    errors = [each["error"] for each in images if "error" in each]
    if errors:
        raise ImageError(
            f"{len(errors)} of {_counted(len(images), 'picture')} could not be read: {errors[0]}",
            "The others were done" + ("; the JSON lists every failure." if in_json else "."),
        )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
