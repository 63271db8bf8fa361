"""What the machine can do at best: float32 arithmetic and memory bandwidth, measured here.

A process of its own measures them, because numpy reads how many threads it may use as it starts.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from effdet_deploy.benchmark.child import json_of_child
from effdet_deploy.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable

_SIDE = 2048
"""Of the square matrices: large enough that moving them costs nothing beside multiplying them."""
_BYTES = 256 * 2**20
"""Of the array that is copied: larger than what one program gets of most caches."""
_REPEATS = 6
_LIBRARIES = ("OPENBLAS", "OMP", "MKL", "VECLIB_MAXIMUM", "BLIS")
_TIMEOUT_S = 120


@dataclass(frozen=True)
class Ceilings:
    """The best seen of several tries.

    Attributes:
        threads: how many were used.
        flops: floating-point operations a second of a float32 matrix product; a
            multiply-accumulate is two.
        bandwidth: bytes a second of a copy, read and written both counted.
    """

    threads: int
    flops: float
    bandwidth: float

    def __str__(self) -> str:
        return (
            f"{1e-9 * self.flops:.0f} GFLOP/s in a float32 matrix product and "
            f"{1e-9 * self.bandwidth:.1f} GB/s in a copy, on {self.threads} threads"
        )


@functools.cache
def measure_ceilings(threads: int) -> Ceilings:
    """Measure what ``threads`` threads can do at best; it takes about two seconds, once.

    Raises:
        ResourceError: the process that measures did not come to its end.
    """
    limits = {f"{library}_NUM_THREADS": str(threads) for library in _LIBRARIES}
    try:
        found = json_of_child(
            "-P",
            "-m",
            __name__,
            threads,
            what="the measurement of ceilings",
            environment=limits,
            timeout=_TIMEOUT_S,
        )
        return Ceilings(**found)
    except (RuntimeError, TypeError) as error:
        raise ResourceError(
            "What this machine can do at best could not be measured: the process that multiplies "
            f"matrices of {_SIDE} x {_SIDE} ended without a result.",
            "Free some memory (about 1 GiB is needed) and run it again.",
        ) from error


def _measured(threads: int) -> Ceilings:
    one = np.random.default_rng(0).random((_SIDE, _SIDE), np.float32)
    product = np.empty_like(one)
    seconds = _best(lambda: np.matmul(one, one, out=product))
    source, target = np.ones(_BYTES, np.uint8), np.zeros(_BYTES, np.uint8)
    slices = [slice(at * _BYTES // threads, (at + 1) * _BYTES // threads) for at in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        # numpy lets go of the interpreter while it copies, so the threads copy at once.
        copied = _best(lambda: list(pool.map(lambda at: np.copyto(target[at], source[at]), slices)))
    return Ceilings(threads, 2 * _SIDE**3 / seconds, 2 * _BYTES / copied)


def _best(run: Callable[[], object]) -> float:
    times = []
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return min(times)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_measured(int(sys.argv[1])))))
