"""The whole post-processing gives the rows (detections) of a plain greedy NMS and of effdet.

effdet's bench is its network with its post-processing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import effdet
import numpy as np
import pytest
import torch
from effdet.anchors import Anchors, decode_box_outputs
from effdet.bench import DetBenchPredict

from effdet_deploy.artifact.anchors import anchor_count
from effdet_deploy.artifact.classes import class_specs
from effdet_deploy.artifact.spec import DetectorSpec, OutputSpec
from effdet_deploy.detection.postprocess import finish_heads, greedy_nms
from effdet_deploy.exporters.source import describe
from effdet_deploy.parity.rows import iou_matrix
from effdet_deploy.pytorch.graph import fold_for_inference
from effdet_deploy.pytorch.graph.pipeline import DetectionPipeline, Postprocess
from effdet_deploy.pytorch.reference import normalize
from effdet_deploy.synthetic import structured_pictures
from tests.networks import conditioned

if TYPE_CHECKING:
    from effdet_deploy.pytorch.network import EfficientDet

SIDE = 128
EFFDET_CANDIDATES = 5000
PICTURES = 4
BORDER = 1e-3
"""The error of effdet's IoU in float32. It comes from the offsets of thousands of pixels that
effdet adds to boxes to separate classes."""
MAX_BORDER_SHARE = 0.02
BOX_TOLERANCE_PX = 1e-2
SCORE_TOLERANCE = 1e-5


@dataclass
class Bench:
    network: EfficientDet
    spec: DetectorSpec
    pipeline: DetectionPipeline
    images: torch.Tensor


@pytest.fixture(scope="module")
def bench() -> Bench:
    network = conditioned("tf_efficientdet_d0", SIDE)
    spec = describe(
        network.config,
        network.config,
        class_specs(90),
        # NMS gets enough steps to be exact here: this test is about the rest of the pipeline.
        OutputSpec(candidates=EFFDET_CANDIDATES, score_threshold=0.0, nms_steps=64),
    )
    pipeline = DetectionPipeline(fold_for_inference(network, spec.input), spec).eval()
    pictures = structured_pictures(PICTURES, SIDE, SIDE, seed=5)
    return Bench(network, spec, pipeline, torch.from_numpy(pictures))


def test_rows_are_exactly_those_of_a_plain_greedy_nms(bench: Bench) -> None:
    with torch.no_grad():
        heads = bench.pipeline.heads(bench.images)
        scores, anchors, classes = bench.pipeline.postprocess.select(heads[0])
        boxes = bench.pipeline.postprocess.decode(heads[1], anchors)
        count, rows, row_scores, row_classes = bench.pipeline(bench.images)
    assert count.flatten().tolist() == [100] * PICTURES
    for image in range(PICTURES):
        kept = greedy_nms(boxes[image].numpy(), classes[image].numpy(), 0.5, limit=100)
        expected = boxes[image][kept][:, [1, 0, 3, 2]]
        assert torch.equal(rows[image], expected)
        assert torch.equal(row_scores[image], scores[image][kept])
        assert torch.equal(row_classes[image], classes[image][kept].int())


def test_rows_are_those_of_effdets_bench_but_for_border_ties(bench: Bench) -> None:
    theirs = effdet.create_model(
        "tf_efficientdet_d0", image_size=(SIDE, SIDE), pretrained_backbone=False
    )
    theirs.load_state_dict(bench.network.state_dict())
    pixels = torch.from_numpy(normalize(bench.images.numpy(), bench.spec.input)).float()
    with torch.no_grad():
        expected = DetBenchPredict(theirs).eval()(pixels).numpy()
        _, boxes, scores, classes = (each.numpy() for each in bench.pipeline(bench.images))
    differing = 0
    for image in range(PICTURES):
        found = np.column_stack([boxes[image], scores[image], classes[image] + 1])
        differing += len(border_ties(found, expected[image]))
    assert differing <= MAX_BORDER_SHARE * 2 * 100 * PICTURES


def test_one_nms_for_all_classes_keeps_what_a_plain_loop_keeps_of_effdets_boxes(
    bench: Bench,
) -> None:
    output = dataclasses.replace(bench.spec.output, class_agnostic=True)
    spec = dataclasses.replace(bench.spec, output=output)
    pipeline = DetectionPipeline(fold_for_inference(bench.network, spec.input), spec).eval()
    theirs = effdet.create_model(
        "tf_efficientdet_d0", image_size=(SIDE, SIDE), pretrained_backbone=False
    )
    theirs.load_state_dict(bench.network.state_dict())
    pixels = torch.from_numpy(normalize(bench.images.numpy(), spec.input)).float()
    with torch.no_grad():
        heads = theirs.eval()(pixels)
        chosen = effdet.bench._post_process(*heads, 5, 90, EFFDET_CANDIDATES)
        _, boxes, scores, classes = (each.numpy() for each in pipeline(bench.images))
    anchors = Anchors.from_config(theirs.config).boxes
    differing = 0
    for image in range(PICTURES):
        logits, codes, rows, labels = (each[image] for each in chosen)
        corners = decode_box_outputs(codes, anchors[rows], output_xyxy=True)
        kept = plain_nms(corners.numpy())
        expected = torch.cat([corners, logits.sigmoid(), labels[:, None] + 1], dim=1)[kept].numpy()
        found = np.column_stack([boxes[image], scores[image], classes[image] + 1])
        differing += len(border_ties(found, expected, across_classes=True))
        # An anchor is found only once, even if it has high scores for several classes.
        assert iou_matrix(*[boxes[image].astype(float)] * 2)[np.triu_indices(100, 1)].max() < 0.501
    assert differing <= MAX_BORDER_SHARE * 2 * 100 * PICTURES


@pytest.mark.parametrize("form", ["blocks", "matrix", "greedy"])
def test_every_form_of_one_nms_for_all_classes_gives_the_rows_of_numpy(
    bench: Bench, form: str
) -> None:
    output = dataclasses.replace(
        bench.spec.output, class_agnostic=True, nms_form=form, candidates=1500, max_detections=40
    )
    spec = dataclasses.replace(bench.spec, output=output)
    anchors = anchor_count(spec.anchors, SIDE, SIDE)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, anchors, spec.num_classes, generator=generator) * 1.5 - 3
    codes = torch.randn(2, anchors, 4, generator=generator) * 0.4
    with torch.no_grad():
        _, boxes, scores, classes = Postprocess(spec).eval()(logits, codes)
    expected = finish_heads(logits.numpy(), codes.numpy(), spec)
    np.testing.assert_allclose(boxes, expected["detection_boxes"], atol=BOX_TOLERANCE_PX)
    np.testing.assert_allclose(scores, expected["detection_scores"], atol=SCORE_TOLERANCE)
    np.testing.assert_array_equal(classes, expected["detection_classes"])


def plain_nms(boxes: np.ndarray) -> list[int]:
    """Keep boxes ``[n,4]``, best first, with the textbook's loop, until a hundred are kept."""
    kept: list[int] = []
    for row, (left, top, right, bottom) in enumerate(boxes.tolist()):
        for other in kept:
            x1, y1, x2, y2 = boxes[other].tolist()
            inner = max(0, min(right, x2) - max(left, x1)) * max(0, min(bottom, y2) - max(top, y1))
            if inner > 0.5 * ((right - left) * (bottom - top) + (x2 - x1) * (y2 - y1) - inner):
                break
        else:
            kept.append(row)
        if len(kept) == 100:
            break
    return kept


def border_ties(
    found: np.ndarray, expected: np.ndarray, *, across_classes: bool = False
) -> list[np.ndarray]:
    """Return the rows that only ``found`` or only ``expected`` has; all must be border ties.

    A border tie has an IoU with another row near the threshold, or a score near the last row's.
    """
    lonely = [*missing(found, expected), *missing(expected, found)]
    last = max(found[-1, 4], expected[-1, 4])
    everything = np.concatenate([found, expected])
    for row in lonely:
        rivals = everything[across_classes | (everything[:, 5] == row[5])]
        near = np.abs(iou_matrix(row[None, :4].astype(float), rivals[:, :4].astype(float)) - 0.5)
        pushed_out = row[4] <= last + SCORE_TOLERANCE
        assert near.min() < BORDER or pushed_out, f"{row} differs and is no border tie"
    return lonely


def missing(rows: np.ndarray, among: np.ndarray) -> list[np.ndarray]:
    return [
        row
        for row in rows
        if not (
            (np.abs(among[:, :4] - row[:4]).max(axis=1) < BOX_TOLERANCE_PX)
            & (np.abs(among[:, 4] - row[4]) < SCORE_TOLERANCE)
            & (among[:, 5] == row[5])
        ).any()
    ]


def test_a_row_that_effdet_does_not_have_is_noticed() -> None:
    row = np.array([10.0, 10, 20, 20, 0.9, 1])
    other = np.array([50.0, 50, 60, 60, 0.8, 1])
    with pytest.raises(AssertionError, match="no border tie"):
        border_ties(np.stack([row, other]), np.stack([other, other]))


def test_unused_rows_are_zero_even_where_a_decoded_box_overflows(bench: Bench) -> None:
    logits = torch.full((1, 3069, 90), -20.0)
    logits[0, 7, 3] = 4.0
    codes = torch.full((1, 3069, 4), 200.0)
    codes[0, 7] = 0.0
    count, boxes, scores, classes = bench.pipeline.postprocess(logits, codes)
    strong = scores[0] > 0.5
    assert strong.sum() == 1
    assert classes[0, 0] == 3
    assert torch.isfinite(boxes[0, 0]).all()
    assert count.item() >= 1
