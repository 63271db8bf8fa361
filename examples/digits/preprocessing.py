"""Measure how much mAP is lost if pictures are prepared in another way than in the training.

    python examples/digits/preprocessing.py

The frames are wider than high, three times as large as the network's input, and noisy, as a
camera's frames are. Every row has the same network, but with another option for preprocessing.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from evaluate import measure
from PIL import Image
from scenes import Scene, compose_scene

from effdet_deploy.artifact.classes import class_specs
from effdet_deploy.artifact.spec import OutputSpec
from effdet_deploy.detection.detector import Detector
from effdet_deploy.exporters.source import describe
from effdet_deploy.pytorch.reference import EagerReference
from effdet_deploy.pytorch.weights.loading import build_model

if TYPE_CHECKING:
    from effdet_deploy.pytorch.weights.loading import LoadedModel

WEIGHTS = Path(__file__).with_name("digits_d0.safetensors")
RIGHT = "as it was trained"
CHANGES: dict[str, dict[str, Any]] = {
    RIGHT: {},
    "--resize stretch": {"resize": "stretch"},
    "--resize center": {"resize": "center"},
    "--interpolation linear": {"interpolation": "linear"},
    "--trained-on bgr": {"trained_on": "bgr"},
    "--mean 0 --std 1": {"mean": 0.0, "std": 1.0},
    "--mean 0.5 --std 0.5": {"mean": 0.5, "std": 0.5},
    "--fill 0": {"fill_color": 0},
}
_ENLARGED = 3
_NOISE = 40.0
"""Standard deviation of a pixel; the average of nine pixels has a third of it."""


def frame(index: int) -> Scene:
    """Return a test scene as a camera would see it: its upper two thirds, enlarged and noisy."""
    scene = compose_scene("test", 0, index)
    height, width = scene.image.shape[0] * 2 // 3, scene.image.shape[1]
    # A digit that is cut off may look like another digit, so only whole digits count.
    whole = np.flatnonzero(scene.boxes[:, 3] <= height)
    large = Image.fromarray(scene.image[:height]).resize(
        (width * _ENLARGED, height * _ENLARGED), Image.Resampling.BICUBIC
    )
    noise = np.random.default_rng(index).normal(0, _NOISE, (*large.size[::-1], 3))
    owners = np.full(scene.owners.shape, -1, np.int16)
    for row, digit in enumerate(whole):
        owners[scene.owners == digit] = row
    return dataclasses.replace(
        scene,
        image=np.clip(np.asarray(large) + noise, 0, 255).astype(np.uint8),
        boxes=scene.boxes[whole] * _ENLARGED,
        labels=scene.labels[whole],
        glyphs=scene.glyphs[whole],
        owners=owners.repeat(_ENLARGED, 0).repeat(_ENLARGED, 1),
    )


def accuracy(loaded: LoadedModel, changes: dict[str, Any], scenes: list[Scene]) -> float:
    """Return the network's mAP in points with its preprocessing changed."""
    config = loaded.config.replace(changes)
    classes = class_specs(config.num_classes, loaded.labels, loaded.category_ids)
    spec = describe(config, loaded.base_config, classes, OutputSpec(nms="none"))
    results: list[dict[str, object]] = []
    with Detector(EagerReference(loaded.model, spec)) as detector:
        for image_id, scene in enumerate(scenes, start=1):
            found = detector.detect(scene.image)[0]
            for (x1, y1, x2, y2), score, label in zip(
                found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
            ):
                box = [x1, y1, x2 - x1, y2 - y1]
                row = {"image_id": image_id, "category_id": label + 1, "bbox": box, "score": score}
                results.append(row)
    return 100 * measure(scenes, results).ap


def main() -> int:
    """Print the mAP of every row of :data:`CHANGES`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    arguments = parser.parse_args()
    loaded = build_model(None, str(WEIGHTS))
    scenes = [frame(index) for index in range(arguments.count)]
    for name, changes in CHANGES.items():
        print(f"{name:24} {accuracy(loaded, changes, scenes):5.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
