"""What it takes to get a model going: time and memory of a process that does nothing else."""

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
    """One fresh process that loads a model and detects once.

    Attributes:
        import_seconds: importing this package and the engine.
        load_seconds: from the file to a model ready to run.
        first_seconds: the first detection, which may compile or allocate.
        peak_memory: the most host memory the process held, in bytes; 0 where unknown.
        device_memory: what the device had less of afterwards, in bytes, without the driver's own
            context; 0 on the CPU or where the driver does not say. Programs beside it are counted
            in.
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
    """Load the model at ``path`` in a process of its own and let it detect once.

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
            f"A process of its own could not load '{path.name}' and detect once with it: {reason}.",
            "If the memory ran out, free some and run it again.",
        ) from error


def main(begun: float) -> None:
    """Measure in this process, whose imports began at ``begun``, and write the result as JSON."""
    # Imported here, because importing is part of what is measured.
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
    # Whether an INT8 file may saturate is what the parent's own load has asked.
    detector = Detector.load(path, backend, device, threads, trust, allow_saturation=True)
    loaded = time.perf_counter()
    feed = sample_batch(detector.spec, batch)
    ready = time.perf_counter()
    detector.detect_prepared(feed)
    done = time.perf_counter()
    used = max(0, free - free_memory(index)) if detector.runtime.device != "cpu" else 0
    found = Footprint(imported - begun, loaded - asked, done - ready, peak_memory(), used)
    sys.stdout.write(json.dumps(asdict(found)))
