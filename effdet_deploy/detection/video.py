"""Frames of a video file, a network stream or a camera, in order, with their times.

FFmpeg reads them through the package PyAV (``pip install 'effdet-deploy[video]'``).
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from effdet_deploy.errors import DownloadError, ImageError, limit, refuse, require_package
from effdet_deploy.files import base_name, why_no_file

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from fractions import Fraction

    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"}
    | {".ogv", ".ts", ".webm", ".wmv"}
)
"""The suffixes of files that are recognized as videos."""
_ADDRESS = re.compile(r"(https?|rtmps?|rtp|rtsps?|srt|tcp|udp)://", re.IGNORECASE)
_CAMERA = re.compile(r"\d+|/dev/video\d+")
_SECRET = re.compile(r"(?<=://)[^/@]*@")
"""User and password in an address, which messages must not show."""

TIMEOUT = 10.0
"""Seconds that an address or a camera may take to answer, and later to send the next frame."""
_PATIENCE = 1.0
"""Seconds that closing waits for a thread that is reading."""
_STEP = 0.01
"""Seconds between two checks whether the caller has taken the last frame of a live video."""
_CLOCK = 0.002
"""Seconds by which a frame may be early, because containers round times to their clock."""
_QUARTER_TURN = 90


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video; numpy and :meth:`Detector.stream` take it as a picture.

    Attributes:
        index: its number among all frames of the video, from 0, including unused frames.
        seconds: when it is shown, by the video's own clock.
        pixels: uint8 RGB ``[H,W,3]``, upright.
    """

    index: int
    seconds: float
    pixels: NDArray[np.uint8]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.pixels, dtype=dtype, copy=copy)


def is_video(source: str) -> bool:
    """Return whether ``source`` is a video file, a stream's address or a camera's number."""
    if _ADDRESS.match(source):
        return True
    path = Path(source)
    is_camera = bool(_CAMERA.fullmatch(source)) and not path.is_file() and not path.is_dir()
    return is_camera or (path.suffix.lower() in SUFFIXES and not path.is_dir())


def name_of(source: str) -> str:
    """Return a name for the results of a video: ``clip`` for ``videos/clip.mp4``."""
    if _CAMERA.fullmatch(source):
        return "camera-" + re.sub(r"\D", "", source)
    if _ADDRESS.match(source):
        return Path(base_name(source)).stem or "stream"
    return Path(source).stem


class Video:
    """The frames of a video, which can be iterated over once.

    A file gives all of its frames. A live source, which is a camera or an endless stream, gives the
    newest frame whenever one is requested: frames in between are dropped and counted.

    Args:
        source: a file, the address of a stream, or a camera (``0`` or ``/dev/video0``).
        stride: use only frames whose number is divisible by it.
        max_fps: use at most this many frames per second, by the video's own clock.
        timeout: how many seconds a stream or a camera may take to answer.

    Attributes:
        is_live: whether frames are dropped when they are not read in time.
        size: width and height in pixels of an upright frame, as the video is shown.
        rate: frames per second that the video states; None if it states no rate.
        decoded: how many frames were decoded so far.
        dropped: how many frames of a live source were dropped.
        broken: how many parts of the video could not be decoded.

    Raises:
        MissingPackageError: PyAV is not installed.
        ImageError: the file or the device is not a video that FFmpeg reads.
        DownloadError: the address does not answer.
        UsageError: ``stride``, ``max_fps`` or ``timeout`` is not positive.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        stride: int = 1,
        max_fps: float | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        require_package("av", "reading videos", "video")
        numbers = {"stride": stride, "max_fps": max_fps, "timeout": timeout}
        refuse(
            *(
                limit(name, "more than 0", value, value is None or value > 0)
                for name, value in numbers.items()
            )
        )
        self.source = _SECRET.sub("", str(source))
        self._stride = stride
        self._pause = 1 / max_fps if max_fps else 0.0
        is_camera = bool(_CAMERA.fullmatch(str(source))) and not Path(source).is_file()
        self._is_remote = bool(_ADDRESS.match(str(source)))
        self._container = self._opened(str(source), timeout, is_camera=is_camera)
        self.is_live = is_camera or (self._is_remote and self._container.duration is None)
        self.rate: Fraction | None = self._stream.average_rate or self._stream.guessed_rate
        self.decoded = self.dropped = self.broken = 0
        self._is_closed = threading.Event()
        self._using = threading.Lock()
        self._chosen_ones = self._newest() if self.is_live else self._chosen()
        self._first = next(self._chosen_ones, None)
        if self._first is None:
            self.close()
            raise ImageError(
                f"No frame of '{self.source}' can be decoded.", "Record or download it again."
            )
        height, width = self._first.pixels.shape[:2]
        self.size = (width, height)

    def _opened(self, source: str, timeout: float, *, is_camera: bool) -> InputContainer:
        import av

        options = {"rtsp_transport": "tcp"} if source.lower().startswith("rtsp") else {}
        place = f"/dev/video{source}" if source.isdecimal() and is_camera else source
        if not (self._is_remote or is_camera) and (reason := why_no_file(Path(source))):
            raise ImageError(f"The video '{source}' {reason}.", "Name a video file.")
        try:
            container = av.open(
                place, format="v4l2" if is_camera else None, options=options, timeout=timeout
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            if self._is_remote:
                raise DownloadError(
                    f"'{self.source}' does not send a video: {reason}.",
                    f"Check the address; it must answer within {timeout:g} seconds.",
                ) from error
            if is_camera:
                raise ImageError(
                    f"The camera '{place}' cannot be read: {reason}.",
                    "Check that it is connected and that no other program uses it.",
                ) from error
            raise ImageError(
                f"'{source}' is not a video that FFmpeg reads: {reason}.", "Name another video."
            ) from error
        if not container.streams.video:
            container.close()
            raise ImageError(f"There is no video in '{self.source}'.", "Name a video file.")
        self._stream = container.streams.video[0]
        self._stream.thread_type = "AUTO"
        return container

    @property
    def expected(self) -> int | None:
        """The expected number of frames; None for a live source or an unknown length."""
        seconds = (self._container.duration or 0) / 1e6
        frames = self._stream.frames or (round(seconds * self.rate) if self.rate else 0)
        if self.is_live or not frames:
            return None
        used = -(-frames // self._stride)
        return min(used, int(seconds / self._pause) + 1) if self._pause and seconds else used

    def __iter__(self) -> Iterator[Frame]:
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._chosen_ones

    def _decoded(self) -> Iterator[VideoFrame]:
        """Yield every frame that can be decoded; count the parts that cannot."""
        import av

        packets = self._container.demux(self._stream)
        packet: Packet[VideoStream] | None = None
        while True:
            with self._using:
                if self._is_closed.is_set():
                    return
                try:
                    packet = next(packets, None)
                    frames = packet.decode() if packet else []
                except av.InvalidDataError:
                    self.broken += 1
                    continue
                except av.FFmpegError as error:
                    raise DownloadError(
                        f"'{self.source}' stopped after {self.decoded} frames: {error.strerror}.",
                        "Start again; the results so far are on disk.",
                    ) from error
            if packet is None:
                return
            for frame in frames:
                self.decoded += 1
                self.broken += bool(frame.is_corrupt)
                yield frame

    def _wanted(self) -> Iterator[tuple[int, float, VideoFrame]]:
        """Yield the frames that ``stride`` and ``max_fps`` let pass."""
        due: float | None = None
        for index, frame in enumerate(self._decoded()):
            rate = self.rate or 1
            seconds = float(index / rate) if frame.time is None else frame.time
            # Times are rounded to the container's clock, often to a millisecond.
            if index % self._stride or (due is not None and seconds < due - _CLOCK):
                continue
            if self._pause:
                due = seconds if due is None or seconds >= due + self._pause else due
                due += self._pause
            yield index, seconds, frame

    def _chosen(self) -> Generator[Frame]:
        for index, seconds, frame in self._wanted():
            yield Frame(index, seconds, _upright(frame))

    def _newest(self) -> Generator[Frame]:
        """Read in another thread, and yield the newest frame that it has read."""
        newest: deque[tuple[int, float, VideoFrame] | BaseException | None] = deque(maxlen=1)
        news = threading.Condition()

        def read() -> None:
            end: BaseException | None = None
            try:
                for each in self._wanted():
                    with news:
                        self.dropped += len(newest)
                        newest.append(each)
                        news.notify_all()
            except BaseException as error:  # noqa: BLE001 - it is raised where frames are asked for
                end = error
            with news:
                # The end comes after the last frame: wait until the caller has taken the frame.
                while newest and not self._is_closed.is_set():
                    news.wait(_STEP)
                newest.append(end)
                news.notify_all()

        threading.Thread(target=read, name="video", daemon=True).start()
        while True:
            with news:
                news.wait_for(lambda: newest)
                item = newest.pop()
                news.notify_all()
            if item is None or self._is_closed.is_set():
                return
            if isinstance(item, BaseException):
                raise item
            index, seconds, frame = item
            yield Frame(index, seconds, _upright(frame))

    def close(self) -> None:
        """Release the file, the connection or the camera; closing twice is harmless."""
        self._is_closed.set()
        # A thread that is waiting for a frame keeps the connection until the frame comes.
        if self._using.acquire(timeout=_PATIENCE):
            with contextlib.closing(self._container):
                self._using.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _upright(frame: VideoFrame) -> NDArray[np.uint8]:
    """Return the pixels of a frame as it is shown: phones record turned videos."""
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    turns = round(frame.rotation / _QUARTER_TURN) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
