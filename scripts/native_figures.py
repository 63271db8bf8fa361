"""Time libeffdet and the Python package from a 1080p frame in memory to its boxes.

Both use one thread. Processor time is measured, because other programs disturb it little.

    scripts/native_figures.py d0.onnx native/build/release/libeffdet.so

Runs of the two alternate, so that other load on the machine affects both. Prints the table of
docs/native.md: medians, and the median ratio of neighboring runs with its confidence interval.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import effdet_deploy

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
HEIGHT, WIDTH = 1080, 1920
RUNTIMES = {
    "onnxruntime": ("onnxruntime", "capi/libonnxruntime.so.*", "ONNX Runtime"),
    "openvino": ("openvino", "libs/libopenvino_c.so*", "OpenVINO"),
}


def runtime_library(backend: str) -> Path | None:
    """Return the shared library inside the runtime's wheel; None if the wheel is not installed."""
    package, pattern, _ = RUNTIMES[backend]
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return None
    return next(iter(sorted(Path(found.origin).parent.glob(pattern))), None)


def load_binding() -> Any:
    """Import the ctypes binding, which is an example and not a package."""
    path = ROOT / "native" / "examples" / "python" / "effdet_native.py"
    spec = importlib.util.spec_from_file_location("effdet_native", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"'{path}' is missing.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def make_frame() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a 1080p frame with structure: waves of every size and some noise."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32) / HEIGHT
    frame = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for frequency in (2, 7, 23, 61):
        angle, phase = random.uniform(0, 6.3, 2)
        wave = np.sin(frequency * (x * np.cos(angle) + y * np.sin(angle)) * 6.3 + phase)
        frame += wave[..., None] * random.uniform(10, 40, 3)
    frame += random.normal(128, 8, frame.shape)
    return np.clip(frame, 0, 255).astype(np.uint8)


def milliseconds(work: Callable[[], object]) -> float:
    """Return the processor time of one call."""
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1e3


def compare(first: Callable[[], object], second: Callable[[], object], pairs: int) -> str:
    """Run two functions in turn and return their medians and the ratio of their times."""
    for work in (first, second) * 3:
        work()
    times = np.array([[milliseconds(first), milliseconds(second)] for _ in range(pairs)])
    ratios = np.sort(times[:, 0] / times[:, 1])
    # The 95% confidence interval of the median, from the ranks of a binomial distribution.
    margin = int(np.ceil(0.98 * np.sqrt(pairs)))
    middle = pairs // 2
    low, high = ratios[max(0, middle - margin)], ratios[min(pairs - 1, middle + margin)]
    medians = np.median(times, axis=0)
    ratio = np.median(ratios)
    return f"{medians[0]:.1f} | {medians[1]:.1f} | {ratio:.2f} ({low:.2f} to {high:.2f})"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("library", type=Path)
    parser.add_argument("--pairs", type=int, default=41)
    arguments = parser.parse_args()
    binding, frame = load_binding(), make_frame()
    out = sys.stdout
    out.write(
        "| engine | Python, CPU ms | libeffdet, CPU ms | Python / libeffdet |\n|---|---|---|---|\n"
    )
    for backend, (_, _, name) in RUNTIMES.items():
        library = runtime_library(backend)
        if library is None:
            continue
        native = binding.Detector(
            *(str(arguments.library), str(arguments.model), backend, str(library)),
            threads=1,
        )
        image = binding.view(frame)
        with effdet_deploy.load(arguments.model, backend, "cpu", threads=1) as detector:
            row = compare(
                lambda: detector.detect(frame),
                lambda: native.detect([image]),  # noqa: B023
                arguments.pairs,
            )
        native.close()
        out.write(f"| {name} | {row} |\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
