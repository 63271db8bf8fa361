"""A graph for frames that DeepStream scales refills the padding and clips the boxes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from effdet_deploy.artifact.classes import class_specs
from effdet_deploy.artifact.spec import InputSpec, OutputSpec
from effdet_deploy.detection.postprocess import finish_heads
from effdet_deploy.exporters.source import describe
from effdet_deploy.pytorch.graph import create_pipeline, fold_for_inference
from effdet_deploy.pytorch.reference import EagerReference, normalize
from effdet_deploy.synthetic import structured_pictures
from tests.networks import conditioned

SIDE = 128
# Frames that are wide, tall, and square like the input.
FRAMES = [(72, 128), (160, 90), (64, 64)]
ROWS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")


def run(spec, images):
    network = conditioned("tf_efficientdet_lite0", SIDE)
    pipeline = create_pipeline(fold_for_inference(network, spec.input), spec).eval()
    with torch.no_grad():
        return [each.numpy() for each in pipeline(torch.from_numpy(images))]


def spec_of(frame, **fields):
    config = conditioned("tf_efficientdet_lite0", SIDE).config
    output = OutputSpec(score_threshold=0.05, candidates=1000, **fields)
    return describe(
        config, config, class_specs(90), output, input_kind="float255", frame_size=frame
    )


def frames(spec, padding):
    """Return structured frames in the input of ``spec``, with ``padding`` around them."""
    top, left, bottom, right = spec.input.frame_area
    canvas = np.empty((3, 3, SIDE, SIDE), np.float32)
    canvas[:] = np.reshape(padding, (3, 1, 1))
    pictures = structured_pictures(3, bottom - top, right - left, seed=3)
    canvas[:, :, top:bottom, left:right] = pictures.transpose(0, 3, 1, 2)
    return canvas


@pytest.mark.parametrize("resize", ["letterbox", "center", "stretch"])
@pytest.mark.parametrize("frame", FRAMES)
def test_a_frame_lies_where_nvinfer_puts_it(frame, resize):
    taken = InputSpec(SIDE, SIDE, "float255", resize=resize, frame_size=frame)
    rows, columns = frame
    # gstnvinfer.cpp of DeepStream 8 computes it like this, in doubles.
    down, across = SIDE * rows / columns, SIDE * columns / rows
    height, width = (int(down), SIDE) if down <= SIDE else (SIDE, int(across))
    if resize == "stretch":
        height = width = SIDE
    top, left = ((SIDE - height) // 2, (SIDE - width) // 2) if resize == "center" else (0, 0)
    assert taken.frame_area == (top, left, top + height, left + width)


def test_a_side_that_is_a_whole_quotient_does_not_lose_a_pixel_to_rounding():
    for frame in ((1080, 1920), (720, 1280), (480, 640), (2160, 3840), (1536, 2048)):
        for side in (320, 512, 640, 768, 896):
            rows, columns = frame
            taken = InputSpec(side, side, "float255", frame_size=frame)
            assert taken.frame_area == (0, 0, side * rows // columns, side)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("frame", FRAMES)
def test_the_color_of_the_padding_does_not_matter(frame, order):
    spec = spec_of(frame)
    taken = dataclasses.replace(spec.input, channel_order=order)
    spec = dataclasses.replace(spec, input=taken)
    fill = taken.fill if order == "rgb" else taken.fill[::-1]
    plain = dataclasses.replace(spec, input=dataclasses.replace(taken, frame_size=None))
    black = frames(spec, (0, 0, 0))
    found, white = run(spec, black), run(spec, frames(spec, (255, 255, 255)))
    for ours, theirs in zip(found, white, strict=True):
        assert np.array_equal(ours, theirs)
    # The graph without frames gives the expected rows: its padding has the trained color.
    expected = clipped(run(plain, frames(spec, fill)), spec)
    assert min(len(each[0]) for each in expected) > 10
    for image, (boxes, scores, classes) in enumerate(expected):
        count = found[0][image, 0]
        # Where clipping removes rows, further rows take their place.
        assert count >= len(boxes)
        assert np.array_equal(found[1][image, : len(boxes)], boxes)
        assert np.array_equal(found[2][image, : len(boxes)], scores)
        assert np.array_equal(found[3][image, : len(boxes)], classes)


def clipped(outputs, spec):
    """Clip rows to the frame, as DeepStream's parser must, and drop rows without an area in it."""
    top, left, bottom, right = spec.input.frame_area
    counts, boxes, scores, classes = outputs
    result = []
    for image, count in enumerate(counts[:, 0]):
        inside = np.clip(boxes[image, :count], 0, [right, bottom, right, bottom])
        inside = np.maximum(inside, [left, top, left, top]).astype(np.float32)
        kept = (inside[:, 0] < inside[:, 2]) & (inside[:, 1] < inside[:, 3])
        result.append((inside[kept], scores[image, :count][kept], classes[image, :count][kept]))
    return result


@pytest.mark.parametrize("box_format", ["xyxy", "yxyx"])
def test_numpy_finishes_heads_as_the_graph_does(box_format):
    spec = spec_of((72, 128), box_format=box_format, max_detections=40)
    images = frames(spec, (0, 0, 0))
    raw = dataclasses.replace(spec, output=dataclasses.replace(spec.output, nms="none"))
    found = run(spec, images)
    known = finish_heads(*run(raw, images), spec)
    assert found[0].min() > 10
    for name, ours in zip(ROWS, found, strict=True):
        np.testing.assert_allclose(ours, known[name], rtol=1e-5, atol=1e-4)
    # No box is outside the frame.
    assert found[1].max() == SIDE
    assert found[1][..., 1 if box_format == "yxyx" else 0 :: 2].max() <= SIDE
    assert found[1][..., 0 if box_format == "yxyx" else 1 :: 2].max() == 72


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_the_reference_refills_the_padding_by_itself(order):
    spec = spec_of((72, 128))
    taken = dataclasses.replace(spec.input, channel_order=order)
    black = frames(dataclasses.replace(spec, input=taken), (0, 0, 0))
    fill = taken.fill if order == "rgb" else taken.fill[::-1]
    plain = dataclasses.replace(taken, frame_size=None)
    pixels = normalize(black, taken)
    assert np.array_equal(pixels, normalize(frames(spec, fill), plain))
    network = conditioned("tf_efficientdet_lite0", SIDE)
    known = EagerReference(network, dataclasses.replace(spec, input=taken)).heads(black)
    raw = dataclasses.replace(spec, input=taken, output=OutputSpec(nms="none"))
    for ours, theirs in zip(run(raw, black), known.values(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
