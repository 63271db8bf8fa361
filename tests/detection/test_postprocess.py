"""Raw heads become detections in numpy as in effdet: decoding, selection, NMS and soft NMS."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effdet_deploy.artifact.anchors import anchor_boxes
from effdet_deploy.artifact.spec import (
    AnchorSpec,
    ClassSpec,
    DetectorSpec,
    InputSpec,
    OutputSpec,
    SoftNmsSpec,
    even_octaves,
)
from effdet_deploy.detection.postprocess import (
    decode_boxes,
    finish_heads,
    greedy_nms,
    sigmoid,
    soft_nms,
    top_candidates,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# exp and a handful of products in float32, relative to boxes of a few hundred pixels.
DECODE_TOLERANCE = 1e-3
SIGMOID_TOLERANCE = 1e-6
SOFT_TOLERANCE = 1e-4
"""effdet shifts every class by thousands of pixels, where float32 rounds the IoU of its boxes."""

PAPER_RATIOS = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))


@pytest.mark.parametrize("box_format", ["xyxy", "yxyx"])
def test_decoding_equals_effdets(box_format):
    torch = pytest.importorskip("torch")
    effdet_anchors = pytest.importorskip("effdet.anchors")
    anchors = anchor_boxes(AnchorSpec(3, 7, even_octaves(3), PAPER_RATIOS, 4.0), 128, 128)
    codes = np.random.default_rng(0).normal(0, 0.5, anchors.shape).astype(np.float32)
    expected = effdet_anchors.decode_box_outputs(
        torch.from_numpy(codes), torch.from_numpy(anchors.copy()), output_xyxy=box_format == "xyxy"
    )
    decoded = decode_boxes(codes, anchors, box_format)
    np.testing.assert_allclose(decoded, expected.numpy(), atol=DECODE_TOLERANCE)
    assert decoded.dtype == np.float32


def test_sigmoid_has_no_overflow_at_either_end():
    scores = sigmoid(np.array([-1000, -3, 0, 3, 1000], dtype=np.float32))
    np.testing.assert_allclose(scores, [0, 0.04742587, 0.5, 0.95257413, 1], atol=SIGMOID_TOLERANCE)


# Few distinct values on purpose: with equal values, selection in two stages could choose others.
LOGITS = st.integers(1, 12).flatmap(
    lambda rows: st.integers(1, 5).flatmap(
        lambda columns: st.lists(
            st.lists(st.sampled_from([-2.0, -1.0, 0.0, 1.0]), min_size=columns, max_size=columns),
            min_size=rows,
            max_size=rows,
        )
    )
)


@settings(max_examples=200, deadline=None)
@given(LOGITS, st.integers(1, 70))
def test_the_best_pairs_are_those_of_one_stable_sort_over_all_pairs(rows, count):
    logits = np.array(rows, dtype=np.float32)
    expected = np.argsort(-logits.reshape(-1), kind="stable")[:count]
    anchors, classes = top_candidates(logits, count)
    np.testing.assert_array_equal(anchors * logits.shape[1] + classes, expected)


def plain_nms(boxes, classes, threshold):
    kept = []
    for row, box in enumerate(boxes):
        for other in kept:
            if classes[other] != classes[row]:
                continue
            width = min(box[2], boxes[other][2]) - max(box[0], boxes[other][0])
            height = min(box[3], boxes[other][3]) - max(box[1], boxes[other][1])
            inner = max(width, 0) * max(height, 0)
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, boxes[other])]
            if inner > threshold * (sum(areas) - inner):
                break
        else:
            kept.append(row)
    return kept


# Integer corners: areas and IoU are exact, so a border case is the same in any arithmetic.
BOXES = st.lists(
    st.tuples(
        st.integers(0, 8),
        st.integers(0, 8),
        st.integers(1, 8),
        st.integers(1, 8),
        st.integers(0, 2),
    ),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(BOXES, st.sampled_from([0.0, 0.3, 0.5, 0.75, 1.0]))
def test_nms_equals_the_textbook_loop(rows, threshold):
    table = np.array(rows, dtype=np.float32).reshape(-1, 5)
    boxes = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
    classes = table[:, 4].astype(np.int64)
    expected = plain_nms(boxes.tolist(), classes, threshold)
    np.testing.assert_array_equal(greedy_nms(boxes, classes, threshold), expected)


def test_nms_equals_torchvision_within_each_class():
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    generator = np.random.default_rng(0)
    low = generator.uniform(0, 60, (400, 2)).astype(np.float32)
    boxes = np.concatenate(
        [low, low + generator.uniform(5, 40, (400, 2))], axis=1, dtype=np.float32
    )
    classes = generator.integers(0, 3, 400)
    scores = np.sort(generator.uniform(0, 1, 400).astype(np.float32))[::-1].copy()
    expected = []
    for label in range(3):
        rows = np.flatnonzero(classes == label)
        kept = torchvision.ops.nms(
            torch.from_numpy(boxes[rows]), torch.from_numpy(scores[rows]), 0.5
        )
        expected.extend(rows[kept.numpy()])
    np.testing.assert_array_equal(greedy_nms(boxes, classes, 0.5), sorted(expected))


def test_one_nms_for_all_classes_equals_torchvisions_nms_over_all_boxes():
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    effdet_anchors = pytest.importorskip("effdet.anchors")
    bench = pytest.importorskip("effdet.bench")
    spec = detector_spec(candidates=5000, class_agnostic=True)
    logits, codes = random_heads()
    anchors = torch.from_numpy(anchor_boxes(spec.anchors, 128, 128).copy())
    heads = [torch.from_numpy(each).permute(0, 2, 1)[..., None] for each in (logits, codes)]
    chosen = bench._post_process([heads[0]], [heads[1]], 1, 4, 5000)
    finished = finish_heads(logits, codes, spec)
    for image in range(2):
        scores, regression, rows, classes = (each[image] for each in chosen)
        boxes = effdet_anchors.decode_box_outputs(regression, anchors[rows], output_xyxy=True)
        kept = torchvision.ops.nms(boxes, scores[:, 0].sigmoid(), 0.5)[:100]
        found = {name: each[image][: len(kept)] for name, each in finished.items()}
        assert finished["num_detections"][image] == len(kept)
        np.testing.assert_allclose(found["detection_boxes"], boxes[kept], atol=DECODE_TOLERANCE)
        np.testing.assert_array_equal(found["detection_classes"], classes[kept])
        assert len(set(found["detection_classes"].tolist())) > 1


@pytest.mark.parametrize("soft", [SoftNmsSpec(), SoftNmsSpec("linear", iou_threshold=0.5)])
def test_soft_nms_equals_effdets(soft):
    torch = pytest.importorskip("torch")
    effdet_soft_nms = pytest.importorskip("effdet.soft_nms")
    generator = np.random.default_rng(1)
    low = generator.integers(0, 60, (300, 2)).astype(np.float32)
    size = generator.integers(5, 40, (300, 2)).astype(np.float32)
    boxes = np.concatenate([low, low + size], axis=1)
    classes = generator.integers(0, 3, 300)
    scores = np.sort(generator.uniform(0.01, 1, 300).astype(np.float32))[::-1].copy()
    rows, lowered = effdet_soft_nms.batched_soft_nms(
        torch.from_numpy(boxes),
        torch.from_numpy(scores),
        torch.from_numpy(classes),
        method_gaussian=soft.decay == "gaussian",
        sigma=soft.sigma,
        iou_threshold=soft.iou_threshold,
        score_threshold=soft.score_threshold,
    )
    found, found_scores = soft_nms(boxes, scores, classes, soft)
    np.testing.assert_array_equal(found, rows)
    np.testing.assert_allclose(found_scores, lowered, atol=SIGMOID_TOLERANCE)
    few, few_scores = soft_nms(boxes, scores, classes, soft, limit=20)
    np.testing.assert_array_equal(few, found[:20])
    np.testing.assert_array_equal(few_scores, found_scores[:20])
    assert not np.isin(scores[found], found_scores).all()


def test_raw_heads_with_soft_nms_equal_effdets_bench_with_soft_nms():
    logits, codes = random_heads()
    finished = finish_heads(logits, codes, detector_spec(candidates=5000, soft_nms=SoftNmsSpec()))
    for image, expected in enumerate(effdets_rows(logits, codes, soft_nms=True)):
        found = finished["detection_scores"][image]
        np.testing.assert_allclose(found, expected[:, 4], atol=SOFT_TOLERANCE)
        same = finished["detection_classes"][image] == expected[:, 5] - 1
        np.testing.assert_allclose(
            finished["detection_boxes"][image][same], expected[same, :4], atol=DECODE_TOLERANCE
        )
        assert same.mean() > 0.95
        assert (np.diff(found) <= 0).all()


def detector_spec(classes: int = 4, **output) -> DetectorSpec:
    return DetectorSpec(
        variant="tiny",
        input=InputSpec(height=128, width=128),
        anchors=AnchorSpec(3, 7, even_octaves(3), PAPER_RATIOS, 4.0),
        classes=tuple(ClassSpec(f"class {index}", index + 1) for index in range(classes)),
        output=OutputSpec(**({"nms": "none", "score_threshold": 0.0} | output)),
    )


def random_heads(batch: int = 2, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    count = len(anchor_boxes(detector_spec().anchors, 128, 128))
    logits = generator.normal(-3, 1.5, (batch, count, classes)).astype(np.float32)
    return logits, generator.normal(0, 0.4, (batch, count, 4)).astype(np.float32)


def effdets_rows(
    logits: np.ndarray, codes: np.ndarray, *, soft_nms: bool = False
) -> Iterator[np.ndarray]:
    """Yield the rows of each image, ``[100,6]``, by effdet's own post-processing."""
    torch = pytest.importorskip("torch")
    bench = pytest.importorskip("effdet.bench")
    effdet_anchors = pytest.importorskip("effdet.anchors")
    anchors = torch.from_numpy(anchor_boxes(detector_spec().anchors, 128, 128).copy())
    # To effdet's function, flattened heads are a single level of one row.
    heads = [torch.from_numpy(each).permute(0, 2, 1)[..., None] for each in (logits, codes)]
    for scores, boxes, rows, classes in zip(
        *bench._post_process([heads[0]], [heads[1]], 1, 4, 5000), strict=True
    ):
        yield effdet_anchors.generate_detections(
            scores, boxes, anchors, rows, classes, None, None, soft_nms=soft_nms
        ).numpy()


def test_finished_heads_equal_effdets_own_post_processing():
    logits, codes = random_heads()
    finished = finish_heads(logits, codes, detector_spec(candidates=5000))
    for image, expected in enumerate(effdets_rows(logits, codes)):
        np.testing.assert_allclose(
            finished["detection_boxes"][image], expected[:, :4], atol=DECODE_TOLERANCE
        )
        np.testing.assert_allclose(
            finished["detection_scores"][image], expected[:, 4], atol=SIGMOID_TOLERANCE
        )
        np.testing.assert_array_equal(finished["detection_classes"][image], expected[:, 5] - 1)


def test_finished_heads_have_the_names_dtypes_and_shapes_of_a_models_outputs():
    finished = finish_heads(*random_heads(batch=3), detector_spec(max_detections=7))
    described = {name: (each.dtype.name, each.shape) for name, each in finished.items()}
    assert described == {
        "num_detections": ("int32", (3, 1)),
        "detection_boxes": ("float32", (3, 7, 4)),
        "detection_scores": ("float32", (3, 7)),
        "detection_classes": ("int32", (3, 7)),
    }


def test_rows_below_the_score_threshold_are_dropped_and_unused_rows_are_zero():
    finished = finish_heads(*random_heads(), detector_spec(score_threshold=0.7))
    for image in range(2):
        count = finished["num_detections"][image, 0]
        assert 0 < count < 100
        assert (finished["detection_scores"][image, :count] >= 0.7).all()
        assert not finished["detection_boxes"][image, count:].any()
        assert not finished["detection_scores"][image, count:].any()
        assert not finished["detection_classes"][image, count:].any()


def test_more_candidates_than_there_are_pairs_take_all_pairs():
    logits, codes = random_heads(batch=1, classes=1)
    spec = detector_spec(classes=1, candidates=5000, iou_threshold=1.0, max_detections=5000)
    assert finish_heads(logits, codes, spec)["num_detections"] == logits.size


def test_the_box_format_only_changes_the_order_of_coordinates():
    heads = random_heads()
    spec = detector_spec()
    swapped = dataclasses.replace(spec, output=dataclasses.replace(spec.output, box_format="yxyx"))
    xyxy, yxyx = finish_heads(*heads, spec), finish_heads(*heads, swapped)
    np.testing.assert_array_equal(
        xyxy["detection_boxes"], yxyx["detection_boxes"][..., [1, 0, 3, 2]]
    )


def test_half_precision_heads_are_finished_in_float32():
    logits, codes = (each.astype(np.float16) for each in random_heads())
    finished = finish_heads(logits, codes, detector_spec())
    assert finished["detection_boxes"].dtype == np.float32
    assert np.isfinite(finished["detection_boxes"]).all()
