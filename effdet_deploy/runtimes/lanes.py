"""Computing images side by side, each on one thread of the processor.

An engine that computes a batch on all threads waits after every node for the slowest of them, and
what it computes on large images passes through memory on its way to the next node. Images side by
side wait for nothing and stay in the caches. Beside threads that decode pictures, an engine's
threads wait for each other most of the time, and keep the processor busy with it.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from effdet_deploy.artifact.spec import INPUT_NAME
from effdet_deploy.runtimes.adapter import closed_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.artifact.tensors import Tensors

    Compute = Callable[[Tensors], Tensors]

CACHED_PIXELS = 512 * 512
"""Smaller images are computed together, as many as have this many pixels, in one run: what they
take in the caches is no more, and each run costs the same to begin."""


def usable_cpus() -> set[int]:
    """Return the CPUs that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return affinity(0) if affinity else set(range(os.cpu_count() or 1))


def lane_count(threads: int | None, spec: DetectorSpec) -> int:
    """Return how many images may be computed at once: 1 where none can be computed alone."""
    return (threads or len(usable_cpus())) if spec.batch.minimum == 1 else 1


def images_in_cache(spec: DetectorSpec) -> int:
    """Return how many of the model's images a lane computes together."""
    return max(1, CACHED_PIXELS // (spec.input.height * spec.input.width))


class Lanes:
    """Threads that share the images of a batch, or any that compute images of their own.

    Args:
        name: of the model, for errors.
        count: threads.
        create: makes what each of them runs, when the first images come; it computes a group of
            them on the thread that calls it, and may be called by several at once.
        most: images in a group.
    """

    def __init__(self, name: str, count: int, create: Callable[[], Compute], most: int = 1) -> None:
        self.count, self.most = count, most
        self._create: Callable[[], Compute] | None = create
        self._name = name
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="lane")

    def pays(self, batch: int) -> bool:
        """Say whether every lane would have an image to compute."""
        return batch >= self.count > 1

    def run(self, feeds: Tensors) -> Tensors:
        """Return the outputs for a batch, whose images are run in groups."""
        batch = feeds[INPUT_NAME]
        size = min(self.most, -(-len(batch) // self.count))
        groups = [{INPUT_NAME: batch[at : at + size]} for at in range(0, len(batch), size)]
        with self._lock:
            compute = self._created()
            under_way = [self._pool.submit(compute, each) for each in groups]
        found = [each.result() for each in under_way]
        return {name: np.concatenate([each[name] for each in found]) for name in found[0]}

    def run_here(self, feeds: Tensors) -> Tensors:
        """Return the outputs for a group of images, computed on the thread that calls."""
        with self._lock:
            compute = self._created()
        return compute(feeds)

    def _created(self) -> Compute:
        if self._create is None:
            raise closed_error(self._name)
        compute = self._create()
        # What was made is kept, and with it no longer what it took to make it.
        self._create = lambda: compute
        return compute

    def close(self) -> None:
        """Let go of what they run, and let the threads end; runs that are under way finish."""
        with self._lock:
            self._create = None
            self._pool.shutdown(wait=False)
