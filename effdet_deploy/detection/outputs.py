"""What becomes of pictures in files: annotated copies, and a document of what was found."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from effdet_deploy.detection.fonts import unwritten
from effdet_deploy.detection.images import UNDECODABLE, find_images
from effdet_deploy.detection.pipeline import in_threads
from effdet_deploy.detection.thresholds import shown_thresholds
from effdet_deploy.errors import ImageError, UsageError
from effdet_deploy.files import deliver, require_writable_target, staging

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from effdet_deploy.detection.detector import Detector
    from effdet_deploy.detection.pipeline import Outcome
    from effdet_deploy.detection.thresholds import ScoreThreshold

_SAVED_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
"""Of formats that have room for the mark, by which a later run knows a copy from a picture."""
_SOFTWARE, _MARK = 0x0131, "effdet-deploy detect"
_JPEG_QUALITY = 92


def copies_of(inputs: Sequence[str], output: Path) -> dict[Path, Path]:
    """Pair each picture with the file its annotated copy goes to; none is a picture given.

    Args:
        inputs: pictures, folders or patterns.
        output: the folder of the copies. What an earlier run wrote there is left out where it lies
            inside a folder that is searched.

    Raises:
        ImageError: an input names no picture.
        UsageError: an annotated copy would replace a picture that was given, or another file that
            is no copy of an earlier run.
    """
    home = output.resolve()
    copies: dict[Path, Path] = {}
    taken: set[str] = set()
    for each in inputs:
        has_copies = Path(each).is_dir() and Path(each).resolve() != home
        for picture in find_images(each):
            if picture in copies or (has_copies and picture.resolve().is_relative_to(home)):
                continue
            copies[picture] = _free_name(output, picture, taken)
    given = {picture.resolve() for picture in copies}
    for picture, copy in copies.items():
        if copy.resolve() in given or not _is_free(copy):
            raise UsageError(
                f"The annotated copy of '{picture}' would replace the picture '{copy}'.",
                "Choose another directory with --output.",
            )
    return copies


def _is_free(copy: Path) -> bool:
    """Tell whether nothing stands at ``copy``, or what an earlier run wrote there."""
    try:
        with Image.open(copy) as picture:
            return picture.getexif().get(_SOFTWARE) == _MARK
    except (FileNotFoundError, NotADirectoryError):
        return True
    except UNDECODABLE:
        return False


def _free_name(output: Path, picture: Path, taken: set[str]) -> Path:
    """Return where the copy of ``picture`` goes; ``taken`` are names that other copies have."""
    suffix = picture.suffix if picture.suffix.lower() in _SAVED_SUFFIXES else ".png"
    name, count = picture.stem + suffix, 1
    # Names that differ in case alone are one file on macOS and Windows.
    while name.casefold() in taken:
        count += 1
        name = f"{picture.stem}-{count}{suffix}"
    taken.add(name.casefold())
    return output / name


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


def detect_files(
    detector: Detector,
    copies: Mapping[Path, Path],
    threshold: ScoreThreshold,
    progress: Callable[[int], None],
    font: Path | None = None,
    *,
    fast_decode: bool = False,
) -> dict[str, Any]:
    """Detect in picture files, write an annotated copy of each and return the document for JSON.

    Args:
        detector: the model.
        copies: each picture and where its copy goes; see :func:`copies_of`.
        threshold: drop detections below it; see :meth:`Detector.detect`.
        progress: told how many pictures are done.
        font: what class names are drawn with before any other.
        fast_decode: see :meth:`Detector.stream`; copies have the size that JPEGs are decoded at.
    """
    images = []
    stream = detector.stream(
        list(copies), score_threshold=threshold, keep_image=True, fast_decode=fast_decode
    )
    with contextlib.closing(stream) as outcomes:
        for row in in_threads(lambda each: _saved(each, copies[each.source], font), outcomes, 1):
            images.append(row)
            progress(len(images))
    runtime = detector.runtime
    return {
        "backend": runtime.backend,
        "device": runtime.device,
        "precision": runtime.precision,
        "score_threshold": threshold,
        "images": images,
    }


def _saved(outcome: Outcome, copy: Path, font: Path | None) -> dict[str, Any]:
    """Write the annotated copy and say what is on it, or what was wrong with the picture."""
    found, image, size = outcome.detections, outcome.image, outcome.size
    if found is None or image is None or size is None:
        return {"file": str(outcome.source), "error": str(outcome.error)}
    across, down = image.shape[1] / size[1], image.shape[0] / size[0]
    scaled = found.boxes * np.array([across, down] * 2, np.float32)
    drawn = dataclasses.replace(found, boxes=scaled).draw(image, font)
    mark = Image.Exif()
    mark[_SOFTWARE] = _MARK
    with staging(copy) as directory:
        staged = directory / copy.name
        drawn.save(staged, quality=_JPEG_QUALITY, exif=mark)
        deliver(staged, copy)
    return {
        "file": str(outcome.source),
        "width": size[1],
        "height": size[0],
        "annotated": str(copy),
        "found": str(found),
        "detections": found.to_json(),
    }


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


def require_all_read(images: Sequence[Mapping[str, Any]]) -> None:
    """Check that no picture of :func:`detect_files` was unusable.

    Raises:
        ImageError: one was.
    """
    errors = [each["error"] for each in images if "error" in each]
    if errors:
        raise ImageError(
            f"{len(errors)} of {_counted(len(images), 'picture')} could not be read: {errors[0]}",
            "The others were done; the JSON lists every failure.",
        )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
