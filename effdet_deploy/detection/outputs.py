"""Results of ``detect`` in files: annotated copies, and a document with the detections."""

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
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from effdet_deploy.detection.detections import Detections
    from effdet_deploy.detection.detector import Detector
    from effdet_deploy.detection.images import ImageSource
    from effdet_deploy.detection.pipeline import Outcome
    from effdet_deploy.detection.thresholds import ScoreThreshold
    from effdet_deploy.detection.tiling import Tiles

_SAVED_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
"""Formats that can store a mark, by which a later run recognizes a copy."""
_SOFTWARE = 0x0131
"""The EXIF tag of the program that wrote a picture."""


def pictures_of(inputs: Sequence[str], output: Path, listed: Sequence[str] = ()) -> list[Path]:
    """Return the pictures that inputs name, without repetitions.

    Args:
        inputs: pictures, folders or patterns.
        output: the folder of the results. Copies of an earlier run in it are left out, if they are
            inside a folder that is searched.
        listed: inputs from a list; a missing one is reported as an unreadable picture, since lists
            may be older than files.

    Raises:
        ImageError: an input does not name a picture.
        UsageError: there are no inputs.
    """
    if not inputs and not listed:
        raise UsageError(
            "No pictures were named.",
            "Name pictures or folders, or a list of them with --from FILE.",
        )
    home = output.resolve()
    found: dict[Path, None] = {}
    for place, each in enumerate((*inputs, *listed)):
        has_copies = False
        try:
            has_copies = Path(each).is_dir() and Path(each).resolve() != home
            pictures = find_images(each)
        # A line of a list may be too long for a file name.
        except (ImageError, OSError, ValueError):
            if place < len(inputs):
                raise
            pictures = [Path(each)]
        for picture in pictures:
            if not (has_copies and picture.resolve().is_relative_to(home)):
                found[picture] = None
    return list(found)


def read_list(source: str | None) -> list[str]:
    """Return the inputs in a list file: one per line, or separated by zero bytes if it has any.

    Args:
        source: a file, or ``-`` for standard input; None without a list.

    Raises:
        DataError: the list is unreadable or empty.
    """
    if source is None:
        return []
    try:
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise DataError(
            f"The list '{source}' cannot be read: {error.strerror}.",
            "Name a text file with one picture per line, or - for standard input.",
        ) from error
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    listed = [os.fsdecode(each) for each in lines if each.strip()]
    if not listed:
        raise DataError(f"The list '{source}' is empty.", "Write one picture per line.")
    return listed


def copies_of(pictures: Sequence[Path], output: Path) -> dict[Path, Path]:
    """Pair every picture with the file for its annotated copy, which replaces no given picture.

    Args:
        pictures: the files.
        output: the folder of the copies.

    Raises:
        UsageError: an annotated copy would replace a given picture, or a file that an earlier run
            did not write.
    """
    names = Names()
    copies: dict[Path, Path] = {}
    for each in pictures:
        suffix = each.suffix if each.suffix.lower() in _SAVED_SUFFIXES else ".png"
        copies[each] = output / names.free(each.stem, suffix, MOST_BYTES - len(suffix))
    given = {picture.resolve() for picture in copies}
    for picture, copy in copies.items():
        if copy.resolve() in given or not _is_free(copy):
            raise UsageError(
                f"The annotated copy of '{picture}' would replace the picture '{copy}'.",
                "Choose another directory with --output, or make no copies with --no-annotate.",
            )
    return copies


def _is_free(copy: Path) -> bool:
    """Return whether ``copy`` does not exist, or was written by an earlier run."""
    try:
        with Image.open(copy) as picture:
            return picture.getexif().get(_SOFTWARE) == BY
    except (FileNotFoundError, NotADirectoryError):
        return True
    except UNDECODABLE:
        return False


def require_directory(output: Path) -> None:
    """Check that ``output`` is a directory that is writable, or can be created.

    Raises:
        UsageError: it is a file, or cannot be created or written.
    """
    existing = next(each for each in (output, *output.parents) if each.exists())
    if not existing.is_dir():
        raise UsageError(
            f"The output '{output}' is not a directory: '{existing}' is a file.",
            "Choose another directory.",
        )
    require_writable_target(existing / "detections.json")


def shown_threshold(detector: Detector, asked: ScoreThreshold | None) -> ScoreThreshold:
    """Return the score below which detections are left out.

    It is ``asked``; if that is None, it is 0.3 or the model's floor (the lowest score that the
    model gives), whichever is higher.

    Raises:
        UsageError: a score is below the model's floor or not within 0-1, or a class is unknown.
    """
    shown = shown_thresholds(asked, detector.spec.output.score_threshold)
    detector.checked_threshold(shown)
    return shown


def about_precision(detector: Detector, name: str) -> str:
    """Return a sentence if a model is computed in another precision than its own; else ""."""
    said, computed = detector.spec.precision.kind, detector.runtime.precision
    if said == computed:
        return ""
    return (
        f"{name} is an {said.upper()} file, but this {detector.runtime.device} computes it in "
        f"{computed.upper()}."
    )


def chosen_classes(text: str | None, detector: Detector) -> tuple[str, ...]:
    """Read class names, separated by commas; a name with a comma stands in double quotes.

    None means no names.

    Raises:
        UnknownNameError: the model has no class with this name.
    """
    if text is None:
        return ()
    known = [each.name for each in detector.spec.classes]
    if text in known:
        return (text,)
    asked = [each.strip() for each in next(csv.reader([text], skipinitialspace=True))]
    for each in asked:
        # An engine without the JSON file of its export has numbers instead of class names.
        if each not in known and (known or not each.isdecimal()):
            raise UnknownNameError("class", each, known)
    return tuple(dict.fromkeys(asked))


@dataclass(frozen=True)
class Wanted:
    """The results that are requested for the pictures.

    Attributes:
        output: the directory of all results.
        forms: names of :data:`effdet_deploy.detection.formats.FORMS`, and crops.
        copies: the files for annotated copies, by picture; other pictures get no copy.
        classes: the names of the classes to keep; all if empty.
        tiles: the tiles that large pictures are cut into; None to resize pictures as a whole.
        font: a font file that is tried first for class names.
        fast_decode: see :meth:`Detector.stream`; copies and crops then have the size at which JPEGs
            were decoded.
    """

    output: Path
    forms: tuple[str, ...] = ()
    copies: Mapping[Path, Path] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    tiles: Tiles | None = None
    font: Path | None = None
    fast_decode: bool = False

    def kept(self, found: Detections) -> Detections:
        """Return the detections of the classes that are kept."""
        if not self.classes:
            return found
        return found.only([k for k, name in enumerate(found.names) if name in self.classes])

    def stream(
        self,
        detector: Detector,
        sources: Iterable[ImageSource],
        threshold: ScoreThreshold,
        *,
        keep_image: bool,
        decoders: int | None = None,
    ) -> Generator[Outcome]:
        """Detect in pictures or frames, in tiles if requested; see :meth:`Detector.stream`."""
        if self.tiles:
            return stream_tiled(
                detector, sources, self.tiles, score_threshold=threshold, keep_image=keep_image
            )
        return detector.stream(
            sources,
            score_threshold=threshold,
            decoders=decoders,
            keep_image=keep_image,
            fast_decode=self.fast_decode,
        )


def describe(detector: Detector, threshold: ScoreThreshold, wanted: Wanted) -> dict[str, Any]:
    """Return the document for JSON without the rows of its pictures or videos."""
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
    """Detect in picture files and write the requested results.

    Args:
        detector: the model.
        pictures: the files.
        threshold: drop detections with lower scores; see :meth:`Detector.detect`.
        wanted: the requested results.
        tell: called with a row for JSON when a picture is done.
    """
    keep = bool(wanted.copies) or CROPS in wanted.forms
    places = places_of(pictures)
    with (
        contextlib.closing(
            wanted.stream(detector, pictures, threshold, keep_image=keep)
        ) as outcomes,
        writing(wanted.forms, wanted.output, detector.spec.classes) as add,
        contextlib.closing(in_threads(partial(_annotated, wanted), outcomes, 1)) as annotated,
    ):
        for outcome, row in annotated:
            source, found, size = outcome.source, outcome.detections, outcome.size
            if found is not None and size is not None:
                add(Labeled(source, places[source], size[::-1], found, outcome.image))
            tell(row)


def _annotated(wanted: Wanted, outcome: Outcome) -> tuple[Outcome, dict[str, Any]]:
    """Write the annotated copy, and return its row or the error of the picture."""
    found = outcome.detections
    if found is None or outcome.size is None:
        return outcome, {"file": str(outcome.source), "error": str(outcome.error)}
    found = wanted.kept(found)
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
    """Summarize how much was found in the ``images`` of :func:`detect_files`."""
    done = [each for each in images if "error" not in each]
    count = sum(len(each["detections"]) for each in done)
    return f"Found {_counted(count, 'detection')} in {_counted(len(done), 'picture')}"


def about_letters(images: Sequence[Mapping[str, Any]], font: Path | None) -> str:
    """Return a sentence on class names that were escaped on ``images``; else an empty text."""
    found = sorted({each["name"] for image in images for each in image.get("detections", ())})
    odd = unwritten(found, font)
    if not odd:
        return ""
    names = f"the class name '{odd[0]}', which is"
    if len(odd) > 1:
        names = f"{len(odd)} class names, such as '{odd[0]}'; these names are"
    return (
        f"No font on this machine has all letters of {names} escaped on the pictures. "
        "Name a font with these letters with --font FILE."
    )


def require_all_read(images: Sequence[Mapping[str, Any]], *, in_json: bool = True) -> None:
    """Check that all pictures of :func:`detect_files` were usable.

    ``in_json`` says whether a JSON file lists the pictures.

    Raises:
        ImageError: a picture was unusable.
    """
    errors = [each["error"] for each in images if "error" in each]
    if errors:
        raise ImageError(
            f"{len(errors)} of {_counted(len(images), 'picture')} could not be read; the first "
            f"error: {errors[0]}",
            "All other pictures are done" + ("; the JSON lists every error." if in_json else "."),
        )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
