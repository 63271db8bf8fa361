"""Measure a fresh process from its first import to its first detection; ``startup.py`` starts it.

    python benchmarks/first_detection.py KIND MODEL PICTURE THREADS VARIANT HEIGHT WIDTH

``PICTURE`` is a letterboxed array uint8 ``[1,H,W,3]`` in a .npy file. The result is printed as one
line of JSON. At the top, only modules are imported that every KIND of process needs.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Detect = Callable[[Any], Any]


def ours(kind: str, model: str, threads: int, *_network: Any) -> Callable[[], Detect]:
    """Import what runs one of our files; return a function that loads the file.

    That function returns the function that detects.
    """
    from effdet_deploy import load

    importlib.import_module({"torchscript": "torch"}.get(kind, kind))
    return lambda: load(model, kind, "cpu", threads).detect_prepared


def effdet_bench(
    kind: str, model: str, threads: int, variant: str, size: tuple[int, int]
) -> Callable[[], Detect]:
    """Import effdet; return a function that makes effdet's bench as users of effdet make it.

    That function returns the function that detects. The network is loaded from a checkpoint. For
    ``naive``, the network is an ONNX file that runs in ONNX Runtime, with effdet's own
    post-processing after it.
    """
    import effdet
    import torch
    from effdet.data.transforms import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    from foreign import Foreign, Normalize, onnxruntime_maps

    if kind == "naive":
        importlib.import_module("onnxruntime")
    torch.set_num_threads(threads)

    def ready() -> Detect:
        weights = {"pretrained_backbone": False} if kind == "naive" else {"checkpoint_path": model}
        bench = effdet.create_model(
            variant, bench_task="predict", pretrained=False, image_size=size, **weights
        ).eval()
        if kind == "naive":
            bench.model = Foreign(onnxruntime_maps(model, threads))
        config = bench.config
        normalize = Normalize(
            config.get("mean", IMAGENET_DEFAULT_MEAN), config.get("std", IMAGENET_DEFAULT_STD)
        )

        def detect(picture: Any) -> Any:
            with torch.inference_mode():
                return bench(normalize(torch.from_numpy(picture))).numpy()

        return detect

    return ready


def main() -> None:
    """Measure one start and write it to stdout as JSON; times in seconds, memory in bytes."""
    kind, model, picture, threads, variant, height, width = sys.argv[1:]
    begun = time.perf_counter()
    starter = effdet_bench if kind in ("effdet", "naive") else ours
    ready = starter(kind, model, int(threads), variant, (int(height), int(width)))
    import numpy as np

    image = np.load(picture)
    imported = time.perf_counter()
    detect = ready()
    loaded = time.perf_counter()
    detect(image)
    done = time.perf_counter()
    (memory,) = (
        1024 * int(line.split()[1])
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    report = {
        "import_s": imported - begun,
        "load_s": loaded - imported,
        "first_s": done - loaded,
        "until_first_s": done - begun,
        "peak_memory": memory,
        "imports_torch": "torch" in sys.modules,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
