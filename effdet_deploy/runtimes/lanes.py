"""Computing images side by side, every image on one thread of the processor, called a lane.

If a runtime computes a batch on all threads, it waits after every node for the slowest thread, and
large images pass through memory between two nodes. Images that are computed side by side do not
wait and stay in the caches. If other threads decode pictures at the same time, the threads of a
runtime wait for each other most of the time, and keep the processor busy by waiting.
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
"""Smaller images are run in groups that together have at most this many pixels. Such a group fits
the caches as well as one large image, and a run starts once for the whole group."""


def usable_cpus() -> set[int]:
    """Return the CPUs that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return affinity(0) if affinity else set(range(os.cpu_count() or 1))


def lane_count(threads: int | None, spec: DetectorSpec) -> int:
    """Return how many images may be computed at once: 1 if they cannot be computed separately."""
    return (threads or len(usable_cpus())) if spec.batch.minimum == 1 else 1


def images_in_cache(spec: DetectorSpec) -> int:
    """Return how many of the model's images a thread computes together."""
    return max(1, CACHED_PIXELS // (spec.input.height * spec.input.width))


class Lanes:
    """Threads that share the images of a batch, or that compute images for several callers.

    Args:
        name: the model's name, for errors.
        count: the number of threads.
        create: returns the function that computes a group of images on the calling thread, for
            several callers at once; ``create`` is called when the first images come.
        most: the most images in a group.
    """

    def __init__(self, name: str, count: int, create: Callable[[], Compute], most: int = 1) -> None:
        self.count, self.most = count, most
        self._create: Callable[[], Compute] | None = create
        self._name = name
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="lane")

    def pays(self, batch: int) -> bool:
        """Return whether dividing a batch pays: every one of several lanes gets an image."""
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
        """Return the outputs for a group of images, computed on the calling thread."""
        with self._lock:
            compute = self._created()
        return compute(feeds)

    def _created(self) -> Compute:
        if self._create is None:
            raise closed_error(self._name)
        compute = self._create()
        # The function is kept; what was needed to make it can be freed.
        self._create = lambda: compute
        return compute

    def close(self) -> None:
        """Release the model and end the threads; runs that are under way finish first."""
        with self._lock:
            self._create = None
            self._pool.shutdown(wait=False)
