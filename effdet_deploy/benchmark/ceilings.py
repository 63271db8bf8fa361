"""The best performance of this machine, measured here, and the share of it that a run reaches.

A process of its own measures it, because numpy reads its number of threads when it starts.
"""

from __future__ import annotations

import functools
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from effdet_deploy.benchmark.child import json_of_child
from effdet_deploy.benchmark.measure import seconds_of
from effdet_deploy.errors import ResourceError

if TYPE_CHECKING:
    from effdet_deploy.benchmark.profile import Work

_SIDE = 2048
"""Side of the square matrices: so large that multiplying takes far longer than moving them."""
_COPIED_BYTES = 256 * 2**20
"""Size of the array that is copied: larger than a program's share of most caches."""
_REPEATS = 6
_LIBRARIES = ("OPENBLAS", "OMP", "MKL", "VECLIB_MAXIMUM", "BLIS")
_TIMEOUT_S = 120


@dataclass(frozen=True)
class Ceilings:
    """The best results of several tries.

    Attributes:
        threads: the number of threads.
        flops: floating-point operations per second of a float32 matrix product; a
            multiply-accumulate counts as two.
        bandwidth: bytes per second of a copy, counting both reading and writing.
    """

    threads: int
    flops: float
    bandwidth: float

    def __str__(self) -> str:
        return (
            f"{1e-9 * self.flops:.0f} GFLOP/s in a float32 matrix product and "
            f"{1e-9 * self.bandwidth:.1f} GB/s in a copy, on {self.threads} threads"
        )

    def reached(self, work: Work, seconds: float) -> Reached:
        """Return the shares of the ceilings that a run of ``seconds`` reaches."""
        return Reached(
            2 * work.macs / seconds / self.flops, work.traffic / seconds / self.bandwidth
        )


@dataclass(frozen=True)
class Reached:
    """Shares of the machine's float32 ceilings; INT8 and BF16 may exceed 1."""

    arithmetic: float
    bandwidth: float


@functools.cache
def measure_ceilings(threads: int) -> Ceilings:
    """Measure the best performance of ``threads`` threads; it takes about two seconds, once.

    Raises:
        ResourceError: the measuring process ended without a result.
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
            "The best performance of this machine could not be measured: the process that "
            f"multiplies matrices of {_SIDE} x {_SIDE} ended without a result.",
            "Free some memory (about 1 GiB is needed) and run the benchmark again.",
        ) from error


def _measured(threads: int) -> Ceilings:
    one = np.random.default_rng(0).random((_SIDE, _SIDE), np.float32)
    product = np.empty_like(one)
    source, target = np.ones(_COPIED_BYTES, np.uint8), np.zeros(_COPIED_BYTES, np.uint8)
    slices = [
        slice(at * _COPIED_BYTES // threads, (at + 1) * _COPIED_BYTES // threads)
        for at in range(threads)
    ]
    with ThreadPoolExecutor(threads) as pool:

        def multiply() -> None:
            np.matmul(one, one, out=product)

        def copy() -> None:
            # numpy releases the interpreter's lock to copy, so the threads copy in parallel.
            list(pool.map(lambda at: np.copyto(target[at], source[at]), slices))

        multiplied, copied = (
            min(seconds_of(run) for _ in range(_REPEATS)) for run in (multiply, copy)
        )
    return Ceilings(threads, 2 * _SIDE**3 / multiplied, 2 * _COPIED_BYTES / copied)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_measured(int(sys.argv[1])))))
