"""Small evaluation sets, and detections that are right, shifted or wrong."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from effdet_deploy.evaluation.cocoset import CocoSet, read_coco
from tests.onnx_models import NAMES

SIDE = 96
CATEGORIES = (10, 11, 12)


def write_set(folder, images: int = 6, seed: int = 0):
    """Write pictures and annotations; return the annotations' path."""
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    document = {
        "images": [],
        "annotations": [],
        "categories": [
            {"id": number, "name": name} for number, name in zip(CATEGORIES, NAMES, strict=True)
        ],
    }
    for image_id in range(1, images + 1):
        name = f"{image_id:03d}.png"
        pixels = random.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
        document["images"].append(
            {"id": image_id, "file_name": name, "width": SIDE, "height": SIDE}
        )
        for _ in range(3):
            x, y = (float(each) for each in random.uniform(0, 50, 2))
            width, height = (float(each) for each in random.uniform(10, 40, 2))
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": int(random.choice(CATEGORIES)),
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
    path = folder / "annotations.json"
    path.write_text(json.dumps(document))
    return path


def small_set(folder, **fields) -> CocoSet:
    """Return a set of a few pictures under ``folder``."""
    return read_coco(write_set(folder, **fields))


def noisy_results(dataset: CocoSet, shift: float, seed: int = 1) -> list[dict]:
    """Return one detection per true box, moved by up to ``shift`` pixels.

    If ``shift`` is above 0, there is also a false detection in every picture.
    """
    random = np.random.default_rng(seed)
    results = []
    for each in dataset.document["annotations"]:
        x, y, width, height = each["bbox"]
        dx, dy = random.uniform(-shift, shift, 2)
        results.append(
            {
                "image_id": each["image_id"],
                "category_id": each["category_id"],
                "bbox": [x + dx, y + dy, width, height],
                "score": float(random.uniform(0.2, 1.0)),
            }
        )
    if shift:
        results += [
            {
                "image_id": image_id,
                "category_id": CATEGORIES[0],
                "bbox": [70.0, 70.0, 20.0, 20.0],
                "score": float(random.uniform(0.1, 0.9)),
            }
            for image_id in dataset.paths
        ]
    return results
