"""Where a picture lies in the network's input, what surrounds it, and how boxes come back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from effdet_deploy.artifact.placement import Placement, place
from effdet_deploy.artifact.spec import InputSpec
from effdet_deploy.detection.letterbox import letterbox, prepare_batch

FILL = (124, 116, 104)
# Boxes are float32 and go through one multiplication each way.
ROUND_TRIP_TOLERANCE = 1e-3
# The error of (level - mean) / std in float32, compared with float64.
NORMALIZATION_TOLERANCE = 1e-5

SIDES = st.integers(1, 90)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "target"),
    [
        ((480, 640), (512, 512)),
        ((640, 480), (512, 512)),
        ((33, 47), (128, 128)),
        ((101, 77), (333, 500)),
        ((333, 500), (320, 448)),
        ((128, 128), (128, 128)),
        ((7, 113), (128, 256)),
    ],
)
def test_letterbox_equals_effdets_transform_pixel_for_pixel(size, target):
    transforms = pytest.importorskip("effdet.data.transforms")
    image = picture(*size)
    expected, annotation = transforms.ResizePad(target, fill_color=FILL)(Image.fromarray(image), {})
    canvas, placed = letterbox(image, InputSpec(*target, fill=FILL))
    np.testing.assert_array_equal(canvas, np.asarray(expected))
    assert [1 / each for each in placed.scale] == [annotation["img_scale"]] * 2


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(1, 90), st.integers(1, 90))
def test_letterbox_matches_effdet_wherever_effdet_runs(rows, columns, height, width):
    """effdet fails where a side would shrink to less than a pixel; we keep one pixel."""
    scale = min(height / rows, width / columns)
    image = picture(rows, columns)
    canvas, placed = letterbox(image, InputSpec(height, width, fill=FILL))
    assert canvas.shape == (height, width, 3)
    assert (canvas[placed.content[0] :] == FILL).all()
    assert (canvas[:, placed.content[1] :] == FILL).all()
    if int(rows * scale) and int(columns * scale):
        assert placed.content == (int(rows * scale), int(columns * scale))


@pytest.mark.parametrize("rule", ["letterbox", "center", "stretch"])
@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_boxes_survive_the_way_to_the_network_and_back(rule, rows, columns, corners):
    x, y = sorted(corners[::2]), sorted(corners[1::2])
    box = np.array([[x[0] * columns, y[0] * rows, x[1] * columns, y[1] * rows]], dtype=np.float32)
    placed = place(InputSpec(64, 96, resize=rule), rows, columns)
    in_the_network = box * np.float32(placed.scale * 2) + np.float32(placed.offset * 2)
    np.testing.assert_allclose(placed.clipped(in_the_network), box, atol=ROUND_TRIP_TOLERANCE)
    unclipped = placed.to_image(in_the_network.astype(np.float64))
    assert unclipped.dtype == np.float64
    np.testing.assert_allclose(unclipped, box, atol=ROUND_TRIP_TOLERANCE)


def test_boxes_outside_the_image_are_clipped_to_it():
    placed = Placement(image=(100, 200), content=(50, 100), scale=(0.5, 0.5))
    clipped = placed.clipped(np.array([[-5, -5, 500, 500]], dtype=np.float32))
    np.testing.assert_array_equal(clipped, [[0, 0, 200, 100]])


@pytest.mark.parametrize(
    ("rule", "content", "offset"),
    [("letterbox", (64, 32), (0, 0)), ("center", (64, 32), (32, 0)), ("stretch", (64, 96), (0, 0))],
)
def test_the_resize_rule_says_where_the_picture_lies(rule, content, offset):
    image = picture(200, 100)
    canvas, placed = letterbox(image, InputSpec(64, 96, fill=FILL, resize=rule))
    assert (placed.content, placed.offset) == (content, offset)
    (left, top), (height, width) = offset, content
    scaled = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(canvas[top:, left:][:height, :width], np.asarray(scaled))
    outside = np.ones((64, 96), bool)
    outside[top : top + height, left : left + width] = False
    assert (canvas[outside] == FILL).all()


def test_every_resize_rule_maps_what_is_seen_back_to_its_box():
    image = np.zeros((90, 150, 3), np.uint8)
    image[30:60, 100:140] = 255
    for rule in ("letterbox", "center", "stretch"):
        canvas, placed = letterbox(image, InputSpec(128, 128, fill=(0, 0, 0), resize=rule))
        y, x = np.nonzero(canvas[..., 0] > 127)
        found = np.float32([[x.min(), y.min(), x.max() + 1, y.max() + 1]])
        np.testing.assert_allclose(placed.clipped(found), [[100, 30, 140, 60]], atol=1.5)


@pytest.mark.parametrize("rule", ["letterbox", "center", "stretch"])
@pytest.mark.parametrize("interpolation", ["antialias", "linear"])
def test_a_picture_of_the_input_size_is_not_resized_again(rule, interpolation):
    spec = InputSpec(64, 96, resize=rule, interpolation=interpolation)
    once, _ = letterbox(picture(51, 33), spec)
    np.testing.assert_array_equal(letterbox(once, spec)[0], once)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("kind", ["uint8", "float255", "normalized"])
def test_the_batch_is_what_the_graph_input_asks_for(kind, order):
    spec = InputSpec(height=16, width=24, kind=kind, channel_order=order, fill=FILL)
    originals = [picture(20, 30), picture(40, 10, seed=1)]
    batch, placed = prepare_batch(originals, spec)
    assert batch.shape == spec.shape(2)
    assert batch.flags.c_contiguous
    assert batch.dtype == (np.uint8 if kind == "uint8" else np.float32)
    expected = np.stack([letterbox(image, spec)[0] for image in originals])
    if kind == "normalized":
        expected = (expected / 255 - np.array(spec.mean)) / np.array(spec.std)
    if order == "bgr":
        expected = expected[..., ::-1]
    if kind != "uint8":
        expected = expected.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(batch, expected, atol=NORMALIZATION_TOLERANCE)
    assert [each.image for each in placed] == [(20, 30), (40, 10)]


def test_normalization_equals_that_of_effdets_loader():
    torch = pytest.importorskip("torch")
    spec = InputSpec(height=16, width=16, kind="normalized")
    original = picture(16, 16)
    batch, _ = prepare_batch([original], spec)
    mean = torch.tensor([x * 255 for x in spec.mean]).view(1, 3, 1, 1)
    std = torch.tensor([x * 255 for x in spec.std]).view(1, 3, 1, 1)
    expected = (torch.from_numpy(original).permute(2, 0, 1)[None].float() - mean) / std
    np.testing.assert_allclose(batch, expected.numpy(), atol=NORMALIZATION_TOLERANCE)
