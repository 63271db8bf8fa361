from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from effdet_deploy.artifact.spec import InputSpec
from effdet_deploy.detection.letterbox import Letterbox, letterbox, prepare_batch

FILL = (124, 116, 104)
# Boxes are float32 and go through one multiplication each way.
ROUND_TRIP_TOLERANCE = 1e-3
# uint8 minus mean over std in float32, against float64.
NORMALISATION_TOLERANCE = 1e-5

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
    canvas, placed = letterbox(image, *target, FILL)
    np.testing.assert_array_equal(canvas, np.asarray(expected))
    assert 1 / placed.scale == annotation["img_scale"]


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(1, 90), st.integers(1, 90))
def test_letterbox_matches_effdet_wherever_effdet_runs(rows, columns, height, width):
    scale = min(height / rows, width / columns)
    image = picture(rows, columns)
    canvas, placed = letterbox(image, height, width, FILL)
    assert canvas.shape == (height, width, 3)
    assert (canvas[placed.content[0] :] == FILL).all()
    assert (canvas[:, placed.content[1] :] == FILL).all()
    if int(rows * scale) and int(columns * scale):
        assert placed.content == (int(rows * scale), int(columns * scale))


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_boxes_survive_the_way_to_the_network_and_back(rows, columns, corners):
    x, y = sorted(corners[::2]), sorted(corners[1::2])
    box = np.array([[x[0] * columns, y[0] * rows, x[1] * columns, y[1] * rows]], dtype=np.float32)
    _, placed = letterbox(picture(rows, columns), 64, 96, FILL)
    in_the_network = box * np.float32(placed.scale)
    np.testing.assert_allclose(placed.to_image(in_the_network), box, atol=ROUND_TRIP_TOLERANCE)


def test_boxes_outside_the_image_are_clipped_to_it():
    placed = Letterbox(scale=0.5, content=(50, 100), image=(100, 200))
    clipped = placed.to_image(np.array([[-5, -5, 500, 500]], dtype=np.float32))
    np.testing.assert_array_equal(clipped, [[0, 0, 200, 100]])


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("kind", ["uint8", "float255", "normalized"])
def test_the_batch_is_what_the_graph_input_asks_for(kind, order):
    spec = InputSpec(height=16, width=24, kind=kind, channel_order=order, fill=FILL)
    originals = [picture(20, 30), picture(40, 10, seed=1)]
    batch, placed = prepare_batch(originals, spec)
    assert batch.shape == spec.shape(2)
    assert batch.flags.c_contiguous
    assert batch.dtype == (np.uint8 if kind == "uint8" else np.float32)
    expected = np.stack([letterbox(image, 16, 24, FILL)[0] for image in originals])
    if kind == "normalized":
        expected = (expected / 255 - np.array(spec.mean)) / np.array(spec.std)
    if order == "bgr":
        expected = expected[..., ::-1]
    if kind != "uint8":
        expected = expected.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(batch, expected, atol=NORMALISATION_TOLERANCE)
    assert [each.image for each in placed] == [(20, 30), (40, 10)]


def test_normalisation_equals_that_of_effdets_loader():
    torch = pytest.importorskip("torch")
    spec = InputSpec(height=16, width=16, kind="normalized")
    original = picture(16, 16)
    batch, _ = prepare_batch([original], spec)
    mean = torch.tensor([x * 255 for x in spec.mean]).view(1, 3, 1, 1)
    std = torch.tensor([x * 255 for x in spec.std]).view(1, 3, 1, 1)
    expected = (torch.from_numpy(original).permute(2, 0, 1)[None].float() - mean) / std
    np.testing.assert_allclose(batch, expected.numpy(), atol=NORMALISATION_TOLERANCE)
