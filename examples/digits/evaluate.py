"""Measure a digits checkpoint with eager PyTorch and effdet's own network and post-processing.

    python examples/digits/evaluate.py --weights examples/digits/digits_d0.safetensors

This script does not use effdet_deploy, so its figures are a reference for exported artifacts. It
needs the development dependencies effdet and pycocotools.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from batches import normalize
from effdet import DetBenchPredict, create_model
from glyphs import SPLITS
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors import safe_open
from scenes import Scene, coco_annotations, compose_scene
from torch import Tensor, nn

_BATCH = 8


@dataclass(frozen=True)
class Accuracy:
    """COCO box metrics as fractions: mAP@[.5:.95], AP50 and AP75."""

    ap: float
    ap50: float
    ap75: float


def load_bench(weights: Path) -> nn.Module:
    """Return effdet's prediction bench with the checkpoint's weights upcast to FP32."""
    with safe_open(weights, framework="pt") as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    height, width = (int(side) for side in metadata["image_size"].split("x"))
    network = create_model(
        metadata["variant"],
        num_classes=len(json.loads(metadata["labels"])),
        image_size=(height, width),
        pretrained_backbone=False,
    )
    network.load_state_dict(
        {
            name: tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in state.items()
        }
    )
    return DetBenchPredict(network).eval()


@torch.inference_mode()
def predict(bench: nn.Module, scenes: list[Scene]) -> Tensor:
    """Return effdet's rows ``[N, 100, 6]``: x1, y1, x2, y2, score, class from 1."""
    images = torch.from_numpy(np.stack([scene.image for scene in scenes]))
    count, height, width = images.shape[:3]
    size = torch.tensor([[width, height]], dtype=torch.float32).repeat(count, 1)
    return bench(normalize(images), {"img_scale": torch.ones(count), "img_size": size})


def coco_results(rows: Tensor, first_image_id: int) -> list[dict[str, object]]:
    """Turn detection rows into COCO results; padding rows (class 0) are left out."""
    return [
        {
            "image_id": image_id,
            "category_id": int(category),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for image_id, image_rows in enumerate(rows.tolist(), start=first_image_id)
        for x1, y1, x2, y2, score, category in image_rows
        if category > 0
    ]


def measure(scenes: list[Scene], results: list[dict[str, object]]) -> Accuracy:
    """Score COCO results (image ids from 1, in the order of the scenes) with pycocotools."""
    truth = COCO()
    truth.dataset = coco_annotations(scenes, [str(index) for index in range(len(scenes))])
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        metric = COCOeval(truth, truth.loadRes(results), "bbox")
        metric.evaluate()
        metric.accumulate()
        metric.summarize()
    return Accuracy(*(float(value) for value in metric.stats[:3]))


def evaluate(weights: Path, split: str, seed: int, count: int) -> Accuracy:
    """Measure a checkpoint on scenes 0 to ``count - 1`` of a split."""
    bench = load_bench(weights)
    scenes = [compose_scene(split, seed, index) for index in range(count)]
    results: list[dict[str, object]] = []
    for first in range(0, count, _BATCH):
        rows = predict(bench, scenes[first : first + _BATCH])
        results += coco_results(rows, first_image_id=first + 1)
    return measure(scenes, results)


def main() -> int:
    """Print the accuracy of a checkpoint."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    arguments = parser.parse_args()
    accuracy = evaluate(arguments.weights, arguments.split, arguments.seed, arguments.count)
    print(
        f"{arguments.count} {arguments.split} scenes, seed {arguments.seed}: "
        f"mAP {accuracy.ap:.3f}  AP50 {accuracy.ap50:.3f}  AP75 {accuracy.ap75:.3f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
