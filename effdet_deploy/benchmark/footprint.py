"""Time and memory that a new process needs until a model has detected once."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from effdet_deploy.benchmark.child import json_of_child
from effdet_deploy.errors import ResourceError

_TIMEOUT_S = 600
_PROGRAM = """import time
begun = time.perf_counter()
from effdet_deploy.benchmark.footprint import main
main(begun)
"""


@dataclass(frozen=True)
class Footprint:
    """The cost of a new process that loads a model and detects once.

    Attributes:
        import_seconds: time to import this package and the runtime.
        load_seconds: time from the file to a model that is ready to run.
        first_seconds: time of the first detection, which may compile or allocate.
        peak_memory: the most host memory of the process, in bytes; 0 if unknown.
        device_memory: how much device memory was used afterwards, in bytes, without the driver's
            own context; 0 on the CPU or if the driver does not say. Other programs' use during the
            measurement is included.
    """

    import_seconds: float
    load_seconds: float
    first_seconds: float
    peak_memory: int
    device_memory: int

    @property
    def until_first(self) -> float:
        """Seconds from the first import to the first detection."""
        return self.import_seconds + self.load_seconds + self.first_seconds


def measure_footprint(
    path: Path,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    batch: int = 1,
    *,
    trust: bool = False,
) -> Footprint:
    """Load the model at ``path`` in a process of its own and detect once.

    Raises:
        ResourceError: the process ended without a result.
    """
    asked = json.dumps([str(path.resolve()), backend, device, threads, trust, batch])
    try:
        found = json_of_child(
            "-P", "-c", _PROGRAM, asked, what=f"loading {path.name}", timeout=_TIMEOUT_S
        )
        return Footprint(**found)
    except (RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1].rstrip(".")
        raise ResourceError(
            f"'{path.name}' could not be loaded and run once in a process of its own: {reason}.",
            "If memory ran out, close other programs and run the benchmark again.",
        ) from error


def main(begun: float) -> None:
    """Measure this process, whose imports began at ``begun``, and print the result as JSON."""
    # The imports are part of the measurement.
    from effdet_deploy.benchmark.machine import peak_memory
    from effdet_deploy.benchmark.samples import sample_batch
    from effdet_deploy.detection.detector import Detector
    from effdet_deploy.runtimes import import_backend
    from effdet_deploy.runtimes.gpu import free_memory

    path, backend, device, threads, trust, batch = json.loads(sys.argv[1])
    import_backend(Path(path), backend)
    imported = time.perf_counter()
    index = int(device.partition(":")[2] or 0)
    free = 0 if device == "cpu" else free_memory(index)
    asked = time.perf_counter()
    # The parent has already checked whether an INT8 file may saturate.
    detector = Detector.load(path, backend, device, threads, trust, allow_saturation=True)
    loaded = time.perf_counter()
    feed = sample_batch(detector.spec, batch)
    ready = time.perf_counter()
    detector.detect_prepared(feed)
    done = time.perf_counter()
    used = max(0, free - free_memory(index)) if detector.runtime.device != "cpu" else 0
    found = Footprint(imported - begun, loaded - asked, done - ready, peak_memory(), used)
    sys.stdout.write(json.dumps(asdict(found)))
