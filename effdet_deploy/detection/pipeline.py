"""Pictures decoded ahead of the engine, so that it never waits: files in, outcomes out, in order.

A reader takes pictures from the source, decoders read and resize them, runners compute batches of
what is ready and turn them into detections. All are threads: Pillow and the engines let go of the
interpreter's lock while they work.
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
"""Seconds that a closed stream waits for its source. One that waits for a camera cannot be
interrupted: its thread ends with the next picture."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one picture: its detections, or the error that stopped it.

    Attributes:
        index: the place of the picture in the sequence, from 0.
        source: the picture as it was passed: a path, bytes, an array, any object.
        detections: what was found; None where ``error`` is set.
        error: what was wrong with this picture.
        image: the decoded picture, uint8 ``[H,W,C]``; None where it was not asked for.
        size: (height, width) of the picture; None where ``error`` is set.
    """

    index: int
    source: Any
    detections: Detections | None = None
    error: EffdetDeployError | None = None
    image: NDArray[np.uint8] | None = None
    size: tuple[int, int] | None = None

    def required(self) -> Detections:
        """Return the detections; raises ``error`` where there are none."""
        if self.detections is None:
            raise self.error or ImageError("The picture has no detections.", "Detect in it first.")
        return self.detections


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture that can be run: ``tensor`` ``[1,…]`` as the graph takes it, and where it lies."""

    tensor: NDArray[Any]
    placement: Placement
    image: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Stages:
    """What is done with pictures; each function is called by several threads at once.

    Attributes:
        prepare: decodes and resizes one picture; what it raises of this package's errors is wrong
            with that picture alone.
        run: computes a batch; anything that it raises ends the stream.
        finish: turns the outputs of a batch into the detections of its pictures.
        batch: how many pictures ``run`` takes at most.
        runs: how many batches are computed at once.
    """

    prepare: Callable[[Any], Prepared]
    run: Callable[[list[Prepared]], Tensors]
    finish: Callable[[Tensors, list[Prepared]], list[Detections]]
    batch: int = 1
    runs: int = 1


_Job = tuple[int, Any]
"""The place of a picture, and the picture as it was passed."""
_Ready = tuple[int, Any, Prepared]


def outcomes(
    sources: Iterable[Any], stages: Stages, decoders: int, ahead: int
) -> Generator[Outcome]:
    """Yield the outcome of every picture, in order.

    Threads start with the first outcome that is asked for, and end with the iterator. What the
    iterable itself raises is raised after the outcomes of the pictures that came before.

    Args:
        sources: pictures; another thread iterates over it.
        stages: what is done with them.
        decoders: how many are decoded at once.
        ahead: how many may be under way before the first of them is taken.

    Raises:
        UsageError: the process was forked since the first outcome.
    """
    line = _Line(sources, stages, decoders, ahead)
    try:
        line.start()
        yield from line.results()
    finally:
        line.close()


class _Line:
    """The threads and queues of one stream."""

    def __init__(self, sources: Iterable[Any], stages: Stages, decoders: int, ahead: int) -> None:
        self._sources = sources
        self._stages = stages
        self._process = os.getpid()
        self._is_closed = False
        self._places = threading.Semaphore(ahead)
        self._engine = threading.Semaphore(stages.runs)
        # None ends the thread that takes it.
        self._waiting: SimpleQueue[_Job | None] = SimpleQueue()
        self._ready: SimpleQueue[_Ready | None] = SimpleQueue()
        # An exception lies where the outcome of the picture would; None lies after the last one.
        self._done: SimpleQueue[tuple[int, Outcome | BaseException | None]] = SimpleQueue()
        self._reader = self._thread(self._read)
        self._decoders = [self._thread(self._decode) for _ in range(decoders)]
        # While one of them finishes a batch, the next one is computed.
        self._runners = [self._thread(self._run) for _ in range(stages.runs + 1)]

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=work, name=f"stream{work.__name__}", daemon=True)

    def start(self) -> None:
        # Threads that are in native code when the interpreter ends can abort the process.
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
        """End all threads; each finishes the picture or the batch that it is at."""
        atexit.unregister(self.close)
        self._is_closed = True
        # The threads of a parent are not there after a fork.
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
        """Run what is ready, once the engine is free; None at the end."""
        with self._engine:
            while jobs := self._gathered():
                try:
                    return jobs, self._stages.run([each for _, _, each in jobs])
                except BaseException as error:  # noqa: BLE001 - raised where outcomes are read
                    self._fail(jobs, error)
        return None

    def _gathered(self) -> list[_Ready]:
        """Wait for a picture, and take with it what else is ready; nothing at the end."""
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
    """Yield what ``function`` returns for every item, in order, computed ahead by threads.

    ``items`` are taken by the caller's thread, twice as many as there are threads.
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
