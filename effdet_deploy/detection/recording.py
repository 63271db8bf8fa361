"""The results of a video: a row of JSON per frame, and an annotated video."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from effdet_deploy.detection.naming import Names, safe_name
from effdet_deploy.detection.pipeline import in_threads
from effdet_deploy.detection.video import is_video, name_of
from effdet_deploy.errors import ResourceError, UsageError
from effdet_deploy.files import deliver, staging

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image

    from effdet_deploy.detection.detector import Detector
    from effdet_deploy.detection.outputs import Wanted
    from effdet_deploy.detection.pipeline import Outcome
    from effdet_deploy.detection.thresholds import ScoreThreshold
    from effdet_deploy.detection.video import Frame, Video

_ENCODERS = ("libx264", "mpeg4")
"""Encoders in order of preference; the first one that FFmpeg was built with is used."""
_CLOCK = Fraction(1, 90_000)
"""The unit of time in annotated videos: all usual frame rates are whole numbers of it."""
_USUAL_RATE = 25


@dataclass(frozen=True)
class Recorded:
    """The files with the results of one video.

    Attributes:
        lines: the file with one JSON object per line and frame.
        annotated: the video with boxes; None if it was not requested.
    """

    lines: Path
    annotated: Path | None


def recorded(sources: Sequence[str], output: Path, *, annotate: bool) -> dict[str, Recorded]:
    """Pair every video with the files of its results in ``output``.

    Raises:
        UsageError: an input is not a video, or a result would replace a given video.
    """
    names = Names()
    given = {Path(each).resolve() for each in sources}
    files: dict[str, Recorded] = {}
    for source in dict.fromkeys(sources):
        if not is_video(source):
            raise UsageError(
                f"A command takes either videos or pictures, but '{source}' is not a video.",
                "Name only videos, or only pictures.",
            )
        stem = names.free(safe_name(name_of(source)))
        annotated = output / f"{stem}.mp4" if annotate else None
        files[source] = Recorded(output / f"{stem}.jsonl", annotated)
        if given & {each.resolve() for each in (annotated, files[source].lines) if each}:
            raise UsageError(
                f"The results of '{source}' would replace a video in '{output}'.",
                "Choose another directory with --output.",
            )
    return files


def detect_video(
    detector: Detector,
    video: Video,
    files: Recorded,
    threshold: ScoreThreshold,
    wanted: Wanted,
    tell: Callable[[int], None],
    rows: list[dict[str, Any]],
) -> None:
    """Detect in every frame of a video and write the requested results.

    Lines are written while frames are processed, so that a stopped run keeps them; the annotated
    video is complete up to that point.

    Args:
        detector: the model.
        video: the frames; it is closed at the end.
        files: the files for the results.
        threshold: drop detections with lower scores; see :meth:`Detector.detect`.
        wanted: the classes, the tiles and the font.
        tell: called with the number of frames done.
        rows: gets the row of the video for JSON, however the work ends: how many frames were used,
            decoded, dropped and broken, and how many detections they have.
    """
    width, height = video.size
    row: dict[str, Any] = {"file": video.source, "width": width, "height": height}
    row |= {"lines": str(files.lines)}
    if files.annotated is not None:
        row["annotated"] = str(files.annotated)
    done = found = 0
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(video)
            # A live video must show boxes of the present, so few of its frames are decoded ahead.
            decoders = 1 if video.is_live else None
            keep = files.annotated is not None
            outcomes = wanted.stream(detector, video, threshold, keep_image=keep, decoders=decoders)
            stack.enter_context(contextlib.closing(outcomes))
            lines = stack.enter_context(files.lines.open("w", encoding="utf-8", buffering=1))
            film = None
            if files.annotated is not None:
                film = stack.enter_context(Film(files.annotated, video.size, video.rate))
            drawn = in_threads(partial(_line, wanted, film), outcomes, 1)
            for line in stack.enter_context(contextlib.closing(drawn)):
                lines.write(json.dumps(line) + "\n")
                done += 1
                found += len(line.get("detections", ()))
                tell(done)
    finally:
        counts = {"decoded": video.decoded, "dropped": video.dropped, "broken": video.broken}
        rows.append(row | {"frames": done, **counts, "found": found})


def _line(wanted: Wanted, film: Film | None, outcome: Outcome) -> dict[str, Any]:
    """Draw a frame into the annotated video, and return its row for JSON."""
    frame: Frame = outcome.source
    line: dict[str, Any] = {"frame": frame.index, "seconds": round(frame.seconds, 6)}
    found = outcome.detections
    if found is None:
        return line | {"error": str(outcome.error)}
    found = wanted.kept(found)
    if film is not None and outcome.image is not None:
        film.add(frame.seconds, found.draw(outcome.image, wanted.font))
    return line | {"detections": found.to_json()}


class Film:
    """An annotated video that is being written: MP4, with the times of its frames.

    The frames so far can be played, however the work ends. Odd sides get one more row or column,
    because the usual encoding of colors needs even sides.

    Args:
        path: the file; it is moved to its place at the end.
        size: width and height in pixels.
        rate: frames per second that the file states; None for 25.

    Raises:
        ResourceError: FFmpeg was built without any of the encoders ``libx264`` and ``mpeg4``.
    """

    def __init__(self, path: Path, size: tuple[int, int], rate: Fraction | None) -> None:
        import av

        self._path = path
        encoder = next((each for each in _ENCODERS if each in av.codecs_available), None)
        if encoder is None:
            raise ResourceError(
                f"This PyAV has no encoder for videos ({', '.join(_ENCODERS)}).",
                "Detect without annotated videos: --no-annotate.",
            )
        self._stack = contextlib.ExitStack()
        self._staged = self._stack.enter_context(staging(path)) / path.name
        self._container = self._stack.enter_context(av.open(str(self._staged), "w", format="mp4"))
        self._size = (size[0] + size[0] % 2, size[1] + size[1] % 2)
        stream: Any = self._container.add_stream(encoder, rate=rate or _USUAL_RATE)
        stream.width, stream.height = self._size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = _CLOCK
        self._stream = stream
        self._first: float | None = None
        self._last = -1

    def add(self, seconds: float, picture: Image.Image) -> None:
        """Append a picture that is shown from ``seconds`` on, by the original video's clock."""
        import av

        pixels = np.asarray(picture)
        width, height = self._size
        pad = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0))
        frame = av.VideoFrame.from_ndarray(np.pad(pixels, pad, mode="edge"), format="rgb24")
        if self._first is None:
            self._first = seconds
        # Players refuse times that do not increase; a restarted stream can have such times.
        self._last = max(self._last + 1, round((seconds - self._first) / _CLOCK))
        frame.pts, frame.time_base = self._last, _CLOCK
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            if self._first is not None:
                self._container.mux(self._stream.encode(None))
                self._container.close()
                deliver(self._staged, self._path)
