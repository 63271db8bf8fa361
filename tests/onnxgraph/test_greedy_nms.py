"""NMS with effdet's 5000 candidates (boxes that enter it) keeps what plain greedy NMS keeps.

``rows`` is how many boxes it keeps at most. In a chain, each box overlaps the next one.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from effdet_deploy.onnxgraph.greedy_nms import expand_greedy
from effdet_deploy.pytorch.graph.nms import GreedyNms, with_area_and_class

COUNT = 5000
IOU_THRESHOLD = 0.5


def plain_greedy(boxes: np.ndarray, classes: np.ndarray, limit: int) -> list[int]:
    """Return the boxes that greedy NMS keeps by its definition, box by box, in float64."""
    kept: list[int] = []
    for row, (y0, x0, y1, x1) in enumerate(boxes.astype(np.float64)):
        rivals = boxes[[each for each in kept if classes[each] == classes[row]]].astype(np.float64)
        height = np.minimum(rivals[:, 2], y1) - np.maximum(rivals[:, 0], y0)
        width = np.minimum(rivals[:, 3], x1) - np.maximum(rivals[:, 1], x0)
        inter = np.maximum(height, 0) * np.maximum(width, 0)
        areas = (rivals[:, 2] - rivals[:, 0]) * (rivals[:, 3] - rivals[:, 1])
        if not (inter > IOU_THRESHOLD * (areas + (y1 - y0) * (x1 - x0) - inter)).any():
            kept.append(row)
        if len(kept) == limit:
            break
    return kept


def crowd(seed: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return sixty objects with about eighty boxes per object."""
    rng = np.random.default_rng(seed)
    objects = rng.integers(0, 60, COUNT)
    center = rng.uniform(0, 512, (60, 2))[objects] + rng.normal(0, 6, (COUNT, 2))
    size = rng.uniform(20, 90, (60, 2))[objects] * rng.uniform(0.7, 1.4, (COUNT, 2))
    boxes = np.concatenate([center - size / 2, center + size / 2], axis=1)
    return boxes.astype(np.float32), rng.integers(0, classes, COUNT)


def chain(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ``length`` boxes in a line, where each suppresses only the next, and then a crowd."""
    boxes, classes = crowd(1)
    left = np.arange(length, dtype=np.float32) * 25 + 10_000
    row = np.stack([np.zeros_like(left), left, np.full_like(left, 100), left + 100], axis=1)
    boxes[:length], classes[:length] = row, 0
    return boxes, classes


def one_box_many_times() -> tuple[np.ndarray, np.ndarray]:
    """Return one box thousands of times, also once for three other classes, and twenty points.

    The points overlap nothing.
    """
    boxes = np.tile(np.array([[10, 10, 50, 50]], np.float32), (COUNT, 1))
    classes = np.zeros(COUNT, np.int64)
    boxes[100:120] = 30.0
    classes[-3:] = (1, 2, 3)
    return boxes, classes


SCENES = {
    "a crowd": crowd(0),
    "a crowd of one class": crowd(2, classes=1),
    "a chain of 300": chain(300),
    "a chain of 5000": chain(COUNT),
    "one box many times": one_box_many_times(),
}


def expanded(rows: int, *, unroll: bool, boxes: int = COUNT) -> ort.InferenceSession:
    node = helper.make_node(
        "GreedyRows",
        ["boxes", "alive"],
        ["rows"],
        "nms.greedyrows",
        domain="effdet",
        iou_threshold=IOU_THRESHOLD,
        boxes=boxes,
        rows=rows,
    )
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (
            ("boxes", ["batch", boxes, 6]),
            ("alive", ["batch", boxes]),
            ("rows", ["batch", rows]),
        )
    }
    graph = helper.make_graph([node], "nms", [values["boxes"], values["alive"]], [values["rows"]])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("effdet", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    expand_greedy(model, unroll=unroll)
    onnx.checker.check_model(model, full_check=True)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def kept_of(numbers: np.ndarray) -> list[list[int]]:
    return [[COUNT - int(each) for each in row if each > 0] for row in numbers]


def batch_of(*scenes: tuple[np.ndarray, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    boxes, classes = (torch.from_numpy(np.stack(each)) for each in zip(*scenes, strict=True))
    return boxes, classes


def numbers(images: int, out: int = 0) -> np.ndarray:
    """Return the input ``alive``: numbers from COUNT down to 1, but 0 for the last ``out`` boxes.

    A box with 0 takes no part in the NMS.
    """
    found = np.tile(np.arange(COUNT, 0, -1, dtype=np.float32), (images, 1))
    found[:, COUNT - out :] = 0
    return found


@pytest.mark.parametrize("rows", [100, 300])
@pytest.mark.parametrize("scene", SCENES)
def test_a_loop_keeps_the_boxes_that_greedy_nms_keeps(scene: str, rows: int) -> None:
    boxes, classes = SCENES[scene]
    table = with_area_and_class(*batch_of((boxes, classes))).numpy()
    session = expanded(rows, unroll=False)
    found = session.run(None, {"boxes": table, "alive": numbers(1)})[0]
    assert kept_of(found) == [plain_greedy(boxes, classes, rows)]


@pytest.mark.parametrize("unroll", [False, True])
def test_two_images_keep_the_boxes_that_each_image_keeps_alone(unroll: bool) -> None:
    scenes = (SCENES["a crowd"], SCENES["one box many times"])
    table = with_area_and_class(*batch_of(*scenes)).numpy()
    session = expanded(100, unroll=unroll)
    found = session.run(None, {"boxes": table, "alive": numbers(2)})[0]
    assert kept_of(found) == [plain_greedy(*scene, 100) for scene in scenes]


@pytest.mark.parametrize("scene", SCENES)
def test_the_module_keeps_the_boxes_that_greedy_nms_keeps(scene: str) -> None:
    boxes, classes = SCENES[scene]
    alive = torch.from_numpy(numbers(1))
    found = GreedyNms(IOU_THRESHOLD, 300)(
        *batch_of((boxes, classes))[:1], alive, torch.from_numpy(classes)[None]
    )
    assert kept_of(found.numpy()) == [plain_greedy(boxes, classes, 300)]


def test_boxes_that_take_no_part_are_never_kept() -> None:
    boxes, classes = SCENES["a crowd"]
    table = with_area_and_class(*batch_of((boxes, classes))).numpy()
    found = expanded(300, unroll=False).run(
        None, {"boxes": table, "alive": numbers(1, out=COUNT - 40)}
    )[0]
    assert kept_of(found) == [plain_greedy(boxes[:40], classes[:40], 300)]


def test_an_overflowing_box_is_kept_once_and_does_not_drop_others() -> None:
    boxes, classes = (each.copy() for each in SCENES["a crowd"])
    boxes[3] = (-np.inf, -np.inf, np.inf, np.inf)
    boxes[4] = np.nan
    table = with_area_and_class(*batch_of((boxes, classes))).numpy()
    (found,) = kept_of(
        expanded(100, unroll=False).run(None, {"boxes": table, "alive": numbers(1)})[0]
    )
    assert len(set(found)) == len(found)
    assert {3, 4} < set(found)
