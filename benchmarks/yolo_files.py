"""Run Ultralytics' predictor for ``files.py`` in a process of its own, with random weights.

A line on stdin is a JSON list: the paths, and whether the predictor pads pictures as little as
possible, which is its default. For each line the script prints how many boxes were found.
"""

from __future__ import annotations

import json
import sys
from typing import Any

MODEL, SIDE = "yolo11n.yaml", 512


def main() -> int:
    """Predict until there are no more lines."""
    import torch
    from ultralytics import YOLO

    torch.set_num_threads(int(sys.argv[1]))
    model: Any = YOLO(MODEL)
    for line in sys.stdin:
        paths, is_small = json.loads(line)
        found = model.predict(
            paths, stream=True, imgsz=SIDE, device="cpu", verbose=False, rect=is_small
        )
        sys.stdout.write(f"boxes: {sum(len(each.boxes) for each in found)}\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
