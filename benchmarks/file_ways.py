"""The ways from picture files to boxes that ``files.py`` compares."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import effdet
import numpy as np
import torch
from effdet.data.transforms import ImageToNumpy, ResizePad
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from effdet_deploy import ExportOptions, export, load
from effdet_deploy.artifact.spec import INPUT_NAME, BatchSpec
from effdet_deploy.detection.detector import Detector
from effdet_deploy.detection.images import load_image
from effdet_deploy.detection.letterbox import prepare_batch

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Way = Callable[[Sequence[Path]], None]

SIDE, WIDE = 512, (288, 512)
"""The network's input: the side of a square, and a size in the shape of the pictures."""
THRESHOLD = 0.3
GPU_SECONDS = 2e-3
"""Seconds per picture that the stand-in for a GPU takes."""
GPU_BATCH = 8
EAGER_BATCH = 1
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OURS = "ours: `detect`, `Detector.stream`"
SERIAL = "one picture after the other (`Detector.detect` in a loop)"
PROCESSES = "a process for each processor; in each process, one picture after the other"


def prepared_model(directory: Path, size: tuple[int, int] | None = None) -> Path:
    """Export D0 with random weights and effdet's own candidates, unless an earlier run did."""
    path = directory / ("d0-{}x{}.onnx".format(*size) if size else "d0.onnx")
    if not path.exists():
        export("d0", path, ExportOptions(weights="random", image_size=size, verify=False))
    return path


class Stages:
    """Measures what a picture costs in each stage (see ``seconds``), alone on one thread."""

    def __init__(self, directory: Path) -> None:
        self._detector = load(prepared_model(directory), threads=1)

    def seconds(self, paths: Sequence[Path]) -> dict[str, float]:
        """Return the mean processor time of each stage per picture, in seconds."""
        spent = {"decode": 0.0, "letterbox": 0.0, "network": 0.0}
        for path in paths:
            begun = time.process_time()
            image = load_image(path)
            decoded = time.process_time()
            batch, _ = prepare_batch([image], self._detector.spec.input)
            placed = time.process_time()
            self._detector.detect_prepared(batch)
            ended = time.process_time()
            for name, each in zip(
                spent, (decoded - begun, placed - decoded, ended - placed), strict=True
            ):
                spent[name] += each / len(paths)
        return spent


def created_ways(
    directory: Path, threads: int, ultralytics: Path | None, stack: contextlib.ExitStack
) -> dict[str, Way]:
    """Return every way by its name; ``stack`` ends the processes that the ways start."""
    path = prepared_model(directory)
    ours, wide = (
        stack.enter_context(load(each)) for each in (path, prepared_model(directory, WIDE))
    )
    stand_in = Detector(StandIn(ours.spec))
    ways: dict[str, Way] = {
        OURS: partial(streamed, ours),
        SERIAL: lambda paths: [ours.detect(each, THRESHOLD) for each in paths] and None,
        "effdet eager, `DataLoader` of 2 workers": eager(threads, stack),
        PROCESSES: stack.enter_context(Processes(path, threads)),
        "ours, `--fast-decode`": partial(streamed, ours, fast_decode=True),
        "ours at 288x512": partial(streamed, wide),
        "stand-in of 2 ms a picture": partial(streamed, stand_in),
        "stand-in of 2 ms a picture, `--fast-decode`": partial(
            streamed, stand_in, fast_decode=True
        ),
    }
    if ultralytics is not None:
        predictor = stack.enter_context(Predictor(ultralytics, threads))
        ways["Ultralytics YOLO11n at 288x512, its default"] = partial(predictor, is_small=True)
        ways["Ultralytics YOLO11n at 512x512"] = partial(predictor, is_small=False)
    return ways


def streamed(detector: Detector, paths: Sequence[Path], *, fast_decode: bool = False) -> None:
    """Detect as ``effdet-deploy detect`` does, and draw nothing."""
    for outcome in detector.stream(paths, score_threshold=THRESHOLD, fast_decode=fast_decode):
        outcome.required()


class StandIn:
    """A runtime that takes a GPU's time per picture but no processor time, and finds nothing."""

    backend, device, precision = "stand-in", "gpu", "fp32"

    def __init__(self, spec: Any) -> None:
        self.spec = dataclasses.replace(spec, batch=BatchSpec(1, GPU_BATCH, GPU_BATCH))
        self.inputs = self.outputs = ()

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Wait, and return empty rows."""
        count, depth = len(feeds[INPUT_NAME]), self.spec.output.max_detections
        time.sleep(GPU_SECONDS * count)
        return {
            "num_detections": np.zeros((count, 1), np.int32),
            "detection_boxes": np.zeros((count, depth, 4), np.float32),
            "detection_scores": np.zeros((count, depth), np.float32),
            "detection_classes": np.zeros((count, depth), np.int32),
        }

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


class Files(Dataset[tuple[torch.Tensor, float]]):
    """Pictures by their paths, read and resized as effdet's own evaluation does it."""

    def __init__(self) -> None:
        mean = tuple(round(255 * each) for each in IMAGENET_MEAN)
        self._resize, self._to_array = ResizePad(SIDE, fill_color=mean), ImageToNumpy()

    def __getitem__(self, path: Path) -> tuple[torch.Tensor, float]:
        with Image.open(path) as file:
            resized, about = self._resize(file.convert("RGB"), {})
        pixels, _ = self._to_array(resized, about)
        return torch.from_numpy(pixels), about["img_scale"]


class Chosen(Sampler[Path]):
    """The files of a turn. They can be replaced, so the workers stay from one turn to the next."""

    def __init__(self) -> None:
        self.paths: Sequence[Path] = ()

    def __iter__(self) -> Iterator[Path]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)


def eager(threads: int, stack: contextlib.ExitStack) -> Way:
    """Return effdet's own bench behind a loader of two workers."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    bench = effdet.create_model(
        "tf_efficientdet_d0", "predict", pretrained=False, pretrained_backbone=False
    ).eval()
    mean, std = (
        torch.tensor([255 * value for value in each]).view(3, 1, 1)
        for each in (IMAGENET_MEAN, IMAGENET_STD)
    )
    chosen = Chosen()
    loaders = [
        DataLoader(
            Files(),
            batch_size=EAGER_BATCH,
            sampler=chosen,
            num_workers=2,
            persistent_workers=True,
            multiprocessing_context="spawn",
        )
    ]
    # Deleting the iterator ends its workers.
    stack.callback(loaders.clear)

    def run(paths: Sequence[Path]) -> None:
        chosen.paths = paths
        with torch.inference_mode():
            for pixels, scale in loaders[0]:
                rows = bench((pixels.float() - mean) / std)
                rows[..., :4] *= scale.view(-1, 1, 1)

    return run


class Processes:
    """One process per processor, with a detector on one thread in each process."""

    def __init__(self, model: Path, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._count = count
        self._pool = ProcessPoolExecutor(count, context, _open, (model,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown()

    def __call__(self, paths: Sequence[Path]) -> None:
        """Detect in these files."""
        list(self._pool.map(_detect, paths))


_opened: dict[str, Detector] = {}


def _open(model: Path) -> None:
    _opened["detector"] = load(model, threads=1)


def _detect(path: Path) -> int:
    (found,) = _opened["detector"].detect(path, THRESHOLD)
    return len(found)


class Predictor:
    """Ultralytics' predictor in its own process, because this project does not depend on it."""

    def __init__(self, installed: Path, threads: int) -> None:
        script = Path(__file__).with_name("yolo_files.py")
        own = {
            "PYTHONPATH": str(installed.resolve()),
            "YOLO_CONFIG_DIR": str(installed.resolve()),
            "YOLO_AUTOINSTALL": "false",
            "YOLO_OFFLINE": "true",
        }
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, str(script), str(threads)],
            env={**os.environ, **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.communicate()

    def __call__(self, paths: Sequence[Path], *, is_small: bool) -> None:
        """Predict on these files; ``is_small`` pads them as little as possible."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the predictor has no pipes")
        stdin.write(json.dumps([[*map(str, paths)], is_small]) + "\n")
        stdin.flush()
        while not (line := stdout.readline()).startswith("boxes"):
            if not line:
                raise RuntimeError("Ultralytics' predictor ended early")
