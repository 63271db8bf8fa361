"""Pictures for a model that was exported for DeepStream: they lie where nvinfer puts a frame."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import effdet_deploy
from effdet_deploy.artifact.placement import place
from effdet_deploy.artifact.spec import InputSpec
from effdet_deploy.detection.letterbox import prepare_batch
from effdet_deploy.detection.pictures import Pictures, verification_images
from effdet_deploy.synthetic import structured_pictures
from tests.onnx_models import BOXES, SIDE, detector_spec, with_input, write_tiny

FRAME = (72, 128)


def framed(resize="letterbox", frame=FRAME, size=(SIDE, SIDE)):
    return InputSpec(*size, "float255", resize=resize, frame_size=frame)


@pytest.mark.parametrize(("resize", "top"), [("letterbox", 0), ("center", 28), ("stretch", 0)])
def test_a_frame_is_scaled_over_black(resize, top):
    spec = framed(resize)
    (frame,) = structured_pictures(1, 144, 256, seed=2)
    batch, (placed,) = prepare_batch([frame], spec)
    height = SIDE if resize == "stretch" else 72
    assert (placed.content, placed.offset) == ((height, SIDE), (0, top))
    scaled = Image.fromarray(frame).resize((SIDE, height), Image.Resampling.BILINEAR)
    inside = batch[0, :, top : top + height].transpose(1, 2, 0)
    assert np.array_equal(inside, np.asarray(scaled))
    assert not batch[0, :, :top].any()
    assert not batch[0, :, top + height :].any()


@pytest.mark.parametrize("shape", [(144, 256), (100, 100), (90, 40)])
def test_a_picture_of_any_shape_becomes_a_frame_and_its_boxes_come_back(shape):
    placed = place(framed(), *shape)
    assert placed.content == FRAME
    corners = np.array([[0, 0, SIDE, FRAME[0]]], np.float32)
    np.testing.assert_allclose(placed.clipped(corners)[0], [0, 0, shape[1], shape[0]])


def test_boxes_are_in_pixels_of_the_frame(tmp_path):
    spec = with_input(detector_spec(), kind="float255", frame_size=FRAME)
    white = np.full((720, 1280, 3), 255, np.uint8)
    with effdet_deploy.load(write_tiny(tmp_path / "tiny.onnx", spec)) as detector:
        (found,) = detector.detect(white)
    expected = np.clip(BOXES * 10, 0, [1280, 720, 1280, 720])
    inside = (expected[:, 2] > expected[:, 0]) & (expected[:, 3] > expected[:, 1])
    np.testing.assert_allclose(found.boxes, expected[inside])


def test_verification_pictures_are_whole_frames():
    (picture,) = structured_pictures(1, 144, 256, seed=2)
    spec = framed()
    images = verification_images(spec, Pictures(("a",), (picture,)))
    # One picture was given, and one is made: both have the shape of a frame, without padding.
    assert [each.shape for each in images] == [(*FRAME, 3)] * 2
    batch, _ = prepare_batch(images[:1], spec)
    direct, _ = prepare_batch([picture], spec)
    assert np.array_equal(batch, direct)
