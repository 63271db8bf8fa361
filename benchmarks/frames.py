"""Measure the way from a camera's frame to its boxes: ``python benchmarks/frames.py FOLDER``.

The ways begin with a decoded RGB frame and end with detections in its pixels. They are: a file that
resizes frames itself (``--source-size``), and an ordinary file for which ``Detector`` resizes with
Pillow, both in ONNX Runtime and in OpenVINO; and OpenCV with effdet's own bench in PyTorch. The
ways take turns on one thread. Processor time is measured, because other programs disturb it less
than the clock.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy import ExportOptions, export, load
from effdet_deploy.synthetic import structured_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

FRAMES = ((1080, 1920), (720, 1280))
RUNTIMES = ("onnxruntime", "openvino")
PILLOW = "Detector with Pillow"
WARM_UP = 2
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SEED = 3


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where exported files are kept for the next run")
    parser.add_argument("--variant", default="d0")
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--prepare", action="store_true", help="only export")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every frame size and print a table for it."""
    options = parse_arguments(arguments)
    plain = exported(options, None)
    for size in FRAMES:
        framed = exported(options, size)
        if options.prepare:
            continue
        runs = detectors(plain, framed)
        runs["OpenCV, effdet eager"] = eager(options.variant)
        (frame,) = structured_pictures(1, *size, SEED)
        print(f"{size[0]}x{size[1]}")
        for name, (middle, ratio, low, high) in measured(runs, frame, options.turns).items():
            print(f"| {name} | {1e3 * middle:.1f} ms | {ratio:.2f} [{low:.2f}, {high:.2f}] |")
    return 0


def exported(options: argparse.Namespace, size: tuple[int, int] | None) -> Path:
    """Export with random weights, unless an earlier run has exported."""
    name = f"{options.variant}-{size[0]}x{size[1]}.onnx" if size else f"{options.variant}.onnx"
    path: Path = options.folder / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        how = ExportOptions(weights="random", candidates=1000, source_size=size, verify=False)
        export(options.variant, path, how)
    return path


def detectors(plain: Path, framed: Path) -> dict[str, Callable[[NDArray[np.uint8]], Any]]:
    """Return our two ways, for both runtimes."""
    runs = {}
    for runtime in RUNTIMES:
        for way, path in ((PILLOW, plain), ("--source-size", framed)):
            detector = load(path, runtime, threads=1)
            runs[f"{way}, {runtime}"] = partial(detector.detect, score_threshold=0.3)
    return runs


def eager(variant: str) -> Callable[[NDArray[np.uint8]], Any]:
    """Return a function that runs OpenCV's resize and effdet's bench, as users of effdet do."""
    import cv2
    import effdet
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    bench = effdet.create_model(
        f"tf_efficientdet_{variant}", "predict", pretrained=False, pretrained_backbone=False
    ).eval()
    side = bench.config.image_size[0]
    mean, std = (255 * np.array(each, np.float32) for each in (IMAGENET_MEAN, IMAGENET_STD))

    def run(frame: NDArray[np.uint8]) -> Any:
        scale = side / max(frame.shape[:2])
        height, width = (int(each * scale) for each in frame.shape[:2])
        canvas = np.empty((side, side, 3), np.uint8)
        canvas[:] = np.round(mean)
        canvas[:height, :width] = cv2.resize(frame, (width, height))
        pixels = torch.from_numpy((canvas - mean) / std).permute(2, 0, 1)[None]
        with torch.no_grad():
            return bench(pixels.contiguous())[..., :4] / scale

    return run


def measured(
    runs: dict[str, Callable[[NDArray[np.uint8]], Any]], frame: NDArray[np.uint8], turns: int
) -> dict[str, tuple[float, float, float, float]]:
    """Return for each way its median seconds, and its speed relative to the first way.

    The speed is the median ratio over the turns, with the two quartiles.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(turns + WARM_UP):
        for name, run in runs.items():
            begun = time.process_time()
            run(frame)
            if turn >= WARM_UP:
                seconds[name].append(time.process_time() - begun)
    first = next(iter(seconds.values()))
    found = {}
    for name, each in seconds.items():
        ratios = sorted(one / other for one, other in zip(first, each, strict=True))
        quarter = len(ratios) // 4
        middle = statistics.median(ratios)
        found[name] = (statistics.median(each), middle, ratios[quarter], ratios[-1 - quarter])
    return found


if __name__ == "__main__":
    sys.exit(main())
