"""With 5000 candidates (boxes that enter NMS) a graph chooses them in two rounds of TopK.

Its rows (detections) are those of plain greedy NMS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from effdet_deploy.artifact.anchors import anchor_centers
from effdet_deploy.artifact.spec import (
    AnchorSpec,
    ClassSpec,
    DetectorSpec,
    InputSpec,
    OutputSpec,
    even_octaves,
)
from effdet_deploy.onnxgraph.greedy_nms import expand_greedy
from effdet_deploy.pytorch.graph.decode import best_first
from effdet_deploy.pytorch.graph.nms import GreedyNode
from effdet_deploy.pytorch.graph.pipeline import Postprocess
from tests.onnxgraph.test_greedy_nms import plain_greedy

if TYPE_CHECKING:
    from pathlib import Path

COUNT, ROWS, CLASSES, SIDE = 5000, 300, 4, 192
LIMIT = 3840
"""The largest K that TensorRT's TopK takes."""
ASPECTS = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))
SPEC = DetectorSpec(
    variant="none",
    input=InputSpec(SIDE, SIDE),
    anchors=AnchorSpec(3, 7, even_octaves(3), ASPECTS, 4.0),
    classes=tuple(ClassSpec(str(each), each + 1) for each in range(CLASSES)),
    output=OutputSpec(candidates=COUNT, max_detections=ROWS, nms_form="greedy"),
)
ANCHORS = anchor_centers(SPEC.anchors, SIDE, SIDE)
BOX_TOLERANCE_PX = 1e-3


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    path: Path = tmp_path_factory.mktemp("postprocess") / "postprocess.onnx"
    module = Postprocess(SPEC).eval()
    module.nms = GreedyNode(module.nms)
    heads = tuple(torch.zeros(2, len(ANCHORS), depth) for depth in (CLASSES, 4))
    batch = torch.export.Dim("batch", min=1, max=4)
    torch.onnx.export(
        module,
        heads,
        path,
        dynamo=True,
        opset_version=20,
        input_names=["class_logits", "box_regression"],
        dynamic_shapes=({0: batch}, {0: batch}),
        verbose=False,
    )
    model = onnx.load(path)
    for node in model.graph.node:
        # The exporter names the node after its module.
        node.name = "postprocess.nms.greedyrows" if node.domain == "effdet" else node.name
    expand_greedy(model, unroll=False)
    return model


@pytest.fixture(scope="module")
def session(graph: onnx.ModelProto) -> ort.InferenceSession:
    return ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])


def expected(logits: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes xyxy and classes of the expected rows, from all pairs sorted at once."""
    flat = logits.reshape(-1)
    pairs = np.argsort(-flat, kind="stable")[:COUNT]
    pairs = pairs[1 / (1 + np.exp(-flat[pairs])) >= SPEC.output.score_threshold]
    anchors, classes = pairs // CLASSES, pairs % CLASSES
    center, size = ANCHORS[anchors, :2], ANCHORS[anchors, 2:]
    moved = codes[anchors, :2] * size + center
    half = np.exp(codes[anchors, 2:]) * size / 2
    boxes = np.concatenate([moved - half, moved + half], axis=1)
    kept = plain_greedy(boxes, classes, ROWS)
    return boxes[kept][:, [1, 0, 3, 2]], classes[kept]


def assert_as_expected(session: ort.InferenceSession, *images: tuple[np.ndarray, ...]) -> None:
    logits, codes = (np.stack(each).astype(np.float32) for each in zip(*images, strict=True))
    count, boxes, scores, classes = session.run(
        None, {"class_logits": logits, "box_regression": codes}
    )
    for index in range(len(images)):
        wanted, labels = expected(logits[index], codes[index])
        found = int(count[index, 0])
        assert found == len(wanted)
        np.testing.assert_array_equal(classes[index, :found], labels)
        np.testing.assert_allclose(boxes[index, :found], wanted, atol=BOX_TOLERANCE_PX)
        assert (np.diff(scores[index, :found]) <= 0).all()
        assert not boxes[index, found:].any()


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    codes = np.zeros((len(ANCHORS), 4))
    codes[:, :2] = rng.normal(0, 0.2, (len(ANCHORS), 2))
    return rng.normal(-2, 1.5, (len(ANCHORS), CLASSES)), codes


def test_no_topk_takes_more_than_tensorrt_does(graph: onnx.ModelProto) -> None:
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.graph.initializer}
    counts = [int(constants[n.input[1]][0]) for n in graph.graph.node if n.op_type == "TopK"]
    assert counts == [LIMIT, COUNT - LIMIT] * 2


def test_two_images_of_a_batch_have_the_rows_of_greedy_nms(session: ort.InferenceSession) -> None:
    assert_as_expected(session, scene(0), scene(1))


def test_boxes_with_equal_scores_come_in_the_order_of_their_index(
    session: ort.InferenceSession,
) -> None:
    _, codes = scene(2)
    assert_as_expected(session, (np.zeros((len(ANCHORS), CLASSES)), codes))


def test_equal_scores_across_the_border_of_two_rounds_keep_their_order(
    session: ort.InferenceSession,
) -> None:
    rows = np.random.default_rng(3).permutation(len(ANCHORS))
    logits = np.full((len(ANCHORS), CLASSES), -3.0)
    first, equal = rows[:3000], np.sort(rows[3000:6000])
    logits[first, 1] = np.linspace(3, 1, 3000)
    # The equal scores have places 3001 to 6000, which include the border between the rounds and
    # the last place, 5000.
    logits[equal, 1] = 0.5
    center = np.zeros((len(ANCHORS), 2))
    # Ten consecutive boxes have the same position, so a detection stands for ten boxes.
    center[equal, 1] = 100 * (1 + np.arange(3000) // 10)
    codes = np.concatenate(
        [(center - ANCHORS[:, :2]) / ANCHORS[:, 2:], np.log(20 / ANCHORS[:, 2:])], axis=1
    )
    assert len(expected(logits, codes)[0]) == 1 + 2000 // 10
    assert_as_expected(session, (logits, codes))


def test_several_rounds_choose_the_values_that_one_round_chooses() -> None:
    rng = np.random.default_rng(5)
    values = torch.from_numpy(rng.permutation(9000).astype(np.float32)).reshape(1, -1)
    best, places = best_first(values, 8500)
    assert torch.equal(best[0], torch.arange(8999, 499, -1, dtype=torch.float32))
    assert torch.equal(values[0, places[0]], best[0])


def test_no_place_is_chosen_twice_among_equal_values() -> None:
    _, places = best_first(torch.zeros(2, 30), 25, at_once=10)
    assert all(len(set(row.tolist())) == 25 for row in places)
