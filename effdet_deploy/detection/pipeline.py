"""Pictures decoded ahead of the runtime, so that it never waits; outcomes come out in order.

A reader takes pictures from the source, decoders read and resize them, and runners compute batches
of the pictures that are ready and turn the results into detections. All of them are threads: Pillow
and the runtimes release the interpreter's lock while they work.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from effdet_deploy.errors import EffdetDeployError, ImageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from effdet_deploy.artifact.placement import Placement
    from effdet_deploy.artifact.tensors import Tensors
    from effdet_deploy.detection.detections import Detections

Item = TypeVar("Item")
Result = TypeVar("Result")

_SOURCE_PATIENCE = 0.5
"""Seconds that a closed stream waits for its source. A source that waits for a camera cannot be
interrupted: its thread ends with the next picture."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result for one picture: its detections, or the error that stopped it.

    Attributes:
        index: the place of the picture in the sequence, from 0.
        source: the picture as it was passed: a path, bytes, an array, any object.
        detections: the detections; None if ``error`` is set.
        error: why this picture failed.
        image: the decoded picture, uint8 ``[H,W,C]``; None if it was not requested.
        size: (height, width) of the picture; None if ``error`` is set.
    """

    index: int
    source: Any
    detections: Detections | None = None
    error: EffdetDeployError | None = None
    image: NDArray[np.uint8] | None = None
    size: tuple[int, int] | None = None

    def required(self) -> Detections:
        """Return the detections; raise ``error`` if the picture failed."""
        if self.detections is None:
            raise self.error or ImageError(
                "This outcome has neither detections nor an error.",
                "Use the outcomes that Detector.stream yields.",
            )
        return self.detections


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture that is ready to run: the graph's input ``tensor`` ``[1,…]``, and its placement."""

    tensor: NDArray[Any]
    placement: Placement
    image: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Stages:
    """The stages of the work on pictures; several threads call these functions at once.

    Attributes:
        prepare: decodes and resizes one picture; errors of this package concern only this picture.
        run: computes a batch; any error ends the stream.
        finish: turns the outputs of a batch into the detections of its pictures.
        batch: the most pictures in a batch.
        runs: how many batches are computed at once.
    """

    prepare: Callable[[Any], Prepared]
    run: Callable[[list[Prepared]], Tensors]
    finish: Callable[[Tensors, list[Prepared]], list[Detections]]
    batch: int = 1
    runs: int = 1


_Job = tuple[int, Any]
"""The place of a picture in the sequence, and the picture as it was passed."""
_Ready = tuple[int, Any, Prepared]


def outcomes(
    sources: Iterable[Any], stages: Stages, decoders: int, ahead: int
) -> Generator[Outcome]:
    """Yield the outcomes of all pictures, in order.

    Threads start when the first outcome is requested, and end with the iterator. An error of the
    iterable itself is raised after the outcomes of the pictures that preceded it.

    Args:
        sources: pictures; another thread iterates over it.
        stages: the stages of the work.
        decoders: how many pictures are decoded at once.
        ahead: the most pictures under way: taken from ``sources``, but without a yielded outcome.

    Raises:
        UsageError: the process was forked since the first outcome.
    """
    stream = _Stream(sources, stages, decoders, ahead)
    try:
        stream.start()
        yield from stream.results()
    finally:
        stream.close()


class _Stream:
    """The threads and queues of one stream."""

    def __init__(self, sources: Iterable[Any], stages: Stages, decoders: int, ahead: int) -> None:
        self._sources = sources
        self._stages = stages
        self._process = os.getpid()
        self._is_closed = False
        self._places = threading.Semaphore(ahead)
        self._runs = threading.Semaphore(stages.runs)
        # None ends the thread that receives it.
        self._waiting: SimpleQueue[_Job | None] = SimpleQueue()
        self._ready: SimpleQueue[_Ready | None] = SimpleQueue()
        # An exception takes the place of a picture's outcome; None comes after the last outcome.
        self._done: SimpleQueue[tuple[int, Outcome | BaseException | None]] = SimpleQueue()
        self._reader = self._thread(self._read)
        self._decoders = [self._thread(self._decode) for _ in range(decoders)]
        # While one runner finishes a batch, another one computes the next batch.
        self._runners = [self._thread(self._run) for _ in range(stages.runs + 1)]

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=work, name=f"stream{work.__name__}", daemon=True)

    def start(self) -> None:
        # Threads in native code can abort the process when the interpreter ends.
        atexit.register(self.close)
        for thread in (self._reader, *self._decoders, *self._runners):
            thread.start()

    def results(self) -> Generator[Outcome]:
        early: dict[int, Outcome | BaseException | None] = {}
        index = 0
        while True:
            if os.getpid() != self._process:
                raise UsageError(
                    "A stream does not survive the fork of its process.",
                    "Call Detector.stream in the process that reads the outcomes.",
                )
            while index not in early:
                place, result = self._done.get()
                early[place] = result
            result = early.pop(index)
            if result is None:
                return
            if isinstance(result, BaseException):
                raise result
            yield result
            index += 1
            self._places.release()

    def close(self) -> None:
        """End all threads, after the picture or batch that they are working on."""
        atexit.unregister(self.close)
        self._is_closed = True
        # After a fork, the threads of the parent do not exist.
        if os.getpid() != self._process or self._reader.ident is None:
            return
        self._places.release()
        for _ in self._decoders:
            self._waiting.put(None)
        for _ in self._runners:
            self._ready.put(None)
        for thread in (*self._decoders, *self._runners):
            thread.join()
        self._reader.join(_SOURCE_PATIENCE)

    def _read(self) -> None:
        index = 0
        end: BaseException | None = None
        try:
            for source in self._sources:
                self._places.acquire()
                if self._is_closed:
                    return
                self._waiting.put((index, source))
                index += 1
        except BaseException as error:  # noqa: BLE001 - it is raised where outcomes are read
            end = error
        self._done.put((index, end))

    def _decode(self) -> None:
        while (job := self._waiting.get()) is not None and not self._is_closed:
            index, source = job
            try:
                self._ready.put((index, source, self._stages.prepare(source)))
            except EffdetDeployError as error:
                self._done.put((index, Outcome(index, source, error=error)))
            except BaseException as error:  # noqa: BLE001 - it is raised where outcomes are read
                self._done.put((index, error))

    def _run(self) -> None:
        while batch := self._computed():
            jobs, outputs = batch
            try:
                found = self._stages.finish(outputs, [each for _, _, each in jobs])
                results = [
                    Outcome(index, source, rows, image=each.image, size=each.placement.image)
                    for (index, source, each), rows in zip(jobs, found, strict=True)
                ]
            except BaseException as error:  # noqa: BLE001 - it is raised where outcomes are read
                self._fail(jobs, error)
                continue
            for outcome in results:
                self._done.put((outcome.index, outcome))

    def _computed(self) -> tuple[list[_Ready], Tensors] | None:
        """Once the runtime is free, run the pictures that are ready; return None at the end."""
        with self._runs:
            while jobs := self._gathered():
                try:
                    return jobs, self._stages.run([each for _, _, each in jobs])
                except BaseException as error:  # noqa: BLE001 - raised where outcomes are read
                    self._fail(jobs, error)
        return None

    def _gathered(self) -> list[_Ready]:
        """Wait for a picture, and take all others that are ready; an empty list at the end."""
        jobs: list[_Ready] = []
        while len(jobs) < self._stages.batch:
            try:
                job = self._ready.get(block=not jobs)
            except Empty:
                break
            if job is None or self._is_closed:
                return []
            jobs.append(job)
        return jobs

    def _fail(self, jobs: list[_Ready], error: BaseException) -> None:
        for index, _, _ in jobs:
            self._done.put((index, error))


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Generator[Result]:
    """Yield the results of ``function`` for all items, in order, computed ahead by threads.

    The caller's thread takes ``items``, up to twice as many as there are threads in advance.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="ahead") as pool:
        under_way: deque[Any] = deque()
        try:
            for item in items:
                under_way.append(pool.submit(function, item))
                if len(under_way) > 2 * threads:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for each in under_way:
                each.cancel()
