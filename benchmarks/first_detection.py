"""One fresh process from its first import to its first detection; ``startup.py`` starts it.

    python benchmarks/first_detection.py KIND MODEL PICTURE THREADS VARIANT HEIGHT WIDTH

``PICTURE`` is a letterboxed array uint8 ``[1,H,W,3]`` in a .npy file. One JSON line comes out.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Detect = Callable[[Any], Any]
    # Imports what it needs, and returns what loads the model and gives what detects.
    Starter = Callable[[str, int, str, tuple[int, int]], Callable[[], Detect]]


def ours(backend: str) -> Starter:
    """Return what starts one of our files."""

    def start(model: str, threads: int, *_network: Any) -> Callable[[], Detect]:
        from effdet_deploy import load

        def ready() -> Detect:
            detector = load(model, backend, "cpu", threads)
            return detector.detect_prepared

        return ready

    return start


def eager(model: str, threads: int, variant: str, size: tuple[int, int]) -> Callable[[], Detect]:
    """Start effdet as its users do: its bench around the network, from a checkpoint."""
    import effdet
    import torch

    torch.set_num_threads(threads)

    def ready() -> Detect:
        bench = effdet.create_model(
            variant,
            bench_task="predict",
            pretrained=False,
            checkpoint_path=model,
            image_size=size,
        )
        return _with_effdet(bench.eval())

    return ready


def naive(model: str, threads: int, variant: str, size: tuple[int, int]) -> Callable[[], Detect]:
    """Start effdet's exported network in ONNX Runtime, with effdet's own post-processing."""
    import effdet
    import onnxruntime
    import torch

    torch.set_num_threads(threads)

    def ready() -> Detect:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name

        class Network(torch.nn.Module):
            def forward(self, pixels: Any) -> Any:
                maps = [
                    torch.from_numpy(each) for each in session.run(None, {name: pixels.numpy()})
                ]
                return maps[: len(maps) // 2], maps[len(maps) // 2 :]

        bench = effdet.create_model(
            variant,
            bench_task="predict",
            pretrained=False,
            pretrained_backbone=False,
            image_size=size,
        )
        bench.model = Network()
        return _with_effdet(bench)

    return ready


def _with_effdet(bench: Any) -> Detect:
    import torch
    from effdet.data.transforms import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    mean = 255 * torch.tensor(bench.config.get("mean", IMAGENET_DEFAULT_MEAN)).view(1, 3, 1, 1)
    std = 255 * torch.tensor(bench.config.get("std", IMAGENET_DEFAULT_STD)).view(1, 3, 1, 1)

    def detect(picture: Any) -> Any:
        with torch.inference_mode():
            pixels = torch.from_numpy(picture).permute(0, 3, 1, 2).float().sub_(mean).div_(std)
            return bench(pixels).numpy()

    return detect


KINDS: dict[str, Starter] = {
    "onnxruntime": ours("onnxruntime"),
    "openvino": ours("openvino"),
    "torchscript": ours("torchscript"),
    "effdet": eager,
    "naive": naive,
}


def main() -> None:
    """Measure one start and write it to stdout as JSON; times in seconds, memory in bytes."""
    kind, model, picture, threads, variant, height, width = sys.argv[1:]
    begun = time.perf_counter()
    ready = KINDS[kind](model, int(threads), variant, (int(height), int(width)))
    import numpy as np

    if kind == "openvino":
        import openvino  # noqa: F401
    elif kind == "onnxruntime":
        import onnxruntime  # noqa: F401
    elif kind == "torchscript":
        import torch  # noqa: F401
    image = np.load(picture)
    imported = time.perf_counter()
    detect = ready()
    loaded = time.perf_counter()
    detect(image)
    done = time.perf_counter()
    memory = [
        1024 * int(line.split()[1])
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    ]
    report = {
        "import_s": imported - begun,
        "load_s": loaded - imported,
        "first_s": done - loaded,
        "until_first_s": done - begun,
        "peak_memory": memory[0],
        "imports_torch": "torch" in sys.modules,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
