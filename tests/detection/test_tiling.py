"""Large pictures in tiles: every object is found once and whole, wherever the tiles cut it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from effdet_deploy.artifact.spec import BatchSpec, OutputSpec
from effdet_deploy.detection.detections import Detections
from effdet_deploy.detection.detector import load
from effdet_deploy.detection.tiling import Tiles, merge, stream_tiled, tiles_of
from effdet_deploy.errors import ImageError, UsageError
from tests.onnx_models import SIDE, detector_spec, write_tiny

OUTPUT = OutputSpec(max_detections=10)
SIZE = (500, 260)
TILES = Tiles(200, 0.3)


def found(*rows) -> Detections:
    """Return detections with these rows of (box, score, label)."""
    return Detections(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int64),
        ("a", "b"),
        (1, 2),
    )


def seen(objects, tiles: Tiles = TILES, size=SIZE, output: OutputSpec = OUTPUT, whole=()):
    """Merge what a perfect detector finds of ``objects`` (box, score, label) in every tile.

    ``whole`` holds what it finds in the whole picture.
    """
    views = []
    for tile in tiles.boxes(*size):
        low, high = np.array(tile[:2] * 2), np.array(tile[2:] * 2)
        rows = [(np.clip(box, low, high) - low, score, label) for box, score, label in objects]
        views.append((tile, found(*(row for row in rows if np.all(row[0][2:] - row[0][:2] > 2)))))
    return merge(views, found(*whole), size, tiles, output)


def rows_of(detections: Detections) -> list:
    return sorted((each["box"], each["label"]) for each in detections.to_json())


@given(st.integers(32, 300), st.floats(0, 0.9), st.integers(1, 2000))
def test_tiles_cover_a_side_and_overlap_as_much_as_was_asked(side, overlap, length):
    starts = Tiles(side, overlap).starts(length)
    assert starts[0] == 0
    if length <= side:
        assert starts == [0]
        return
    assert starts[-1] + side == length
    # Starts are rounded to pixels.
    assert all(
        after - before <= side * (1 - overlap) + 1 for before, after in itertools.pairwise(starts)
    )


@given(
    st.floats(0, SIZE[0] - 60),
    st.floats(0, SIZE[1] - 60),
    st.floats(8, 60),
    st.floats(8, 60),
    st.sampled_from([0, 1]),
)
def test_an_object_that_fits_the_overlap_is_found_once_and_whole_wherever_it_lies(
    x, y, w, h, label
):
    box = [x, y, x + w, y + h]
    merged = seen([(box, 0.8, label)])
    assert len(merged) == 1
    np.testing.assert_allclose(merged.boxes[0], box, atol=1e-2)
    assert (merged.labels[0], merged.scores[0]) == (label, np.float32(0.8))


def test_a_part_at_a_border_that_looks_like_another_class_is_dropped():
    first, second = TILES.boxes(*SIZE)[:2]
    border = first[2]
    # The left tile sees half of an object of class 0, and takes that half for class 1.
    views = [
        (first, found(([border - 20, 50, border, 90], 0.95, 1))),
        (second, found(([border - 20 - second[0], 50, border + 25 - second[0], 90], 0.6, 0))),
    ]
    merged = merge(views, found(), SIZE, TILES, OUTPUT)
    assert rows_of(merged) == [([border - 20, 50, border + 25, 90], 0)]


def test_an_object_longer_than_the_overlap_takes_the_place_of_its_parts():
    box = [20, 30, 480, 200]
    parts = seen([(box, 0.8, 0)])
    assert len(parts) > 1
    merged = seen([(box, 0.8, 0)], whole=[(box, 0.5, 0)])
    assert rows_of(merged) == [(box, 0)]


def test_objects_that_fit_a_tile_are_not_taken_from_the_whole_picture():
    assert len(seen([], whole=[([10, 10, 60, 60], 0.9, 0)])) == 0


def test_neighbors_are_not_taken_for_one_object():
    objects = [
        ([150, 50, 185, 90], 0.9, 0),
        ([188, 50, 223, 90], 0.8, 0),
        ([150, 60, 185, 99], 0.7, 1),
    ]
    assert rows_of(seen(objects)) == sorted((box, label) for box, _, label in objects)


def test_boxes_of_two_classes_suppress_each_other_only_if_the_models_nms_is_class_agnostic():
    objects = [([150, 50, 185, 90], 0.9, 0), ([150, 51, 185, 91], 0.8, 1)]
    assert len(seen(objects)) == 2
    assert len(seen(objects, output=replace(OUTPUT, class_agnostic=True))) == 1


def test_boxes_of_one_object_are_averaged_by_their_scores():
    first, second = Tiles(200, 0.5).boxes(300, 200)[:2]
    views = [
        (first, found(([110, 50, 150, 90], 0.9, 0))),
        (second, found(([114 - second[0], 50, 154 - second[0], 90], 0.3, 0))),
    ]
    merged = merge(views, found(), (300, 200), Tiles(200, 0.5), OUTPUT)
    np.testing.assert_allclose(merged.boxes, [[111, 50, 151, 90]], rtol=1e-5)
    assert merged.scores.tolist() == [np.float32(0.9)]


@pytest.fixture
def detector(tmp_path):
    with load(write_tiny(tmp_path / "tiny.onnx", detector_spec(batch=BatchSpec(1, 4, 4)))) as made:
        yield made


def picture(width: int, height: int, level: int = 255) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_a_picture_no_larger_than_a_tile_is_not_divided(detector):
    image = picture(SIDE, SIDE - 20)
    (plain,) = detector.detect([image])
    (tiled,) = detector.detect_tiled([image], SIDE)
    assert rows_of(tiled) == rows_of(plain)


def test_each_tile_is_run_in_its_own_pixels_and_boxes_lie_in_the_picture(detector):
    image = picture(2 * SIDE, SIDE, level=0)
    image[:, SIDE:] = 255
    (tiled,) = detector.detect_tiled([image], SIDE, overlap=0, score_threshold=0.9)
    # The model's best box lies at 10, 20, 50, 60, and its score is the tile's brightness.
    assert rows_of(tiled) == [([SIDE + 10, 20, SIDE + 50, 60], 0)]


def test_outcomes_keep_their_order_sizes_and_errors(detector, tmp_path):
    large = tmp_path / "large.png"
    Image.fromarray(picture(300, 200)).save(large)
    broken = tmp_path / "broken.png"
    broken.write_bytes(large.read_bytes()[:200])
    turned = tmp_path / "turned.jpg"
    mark = Image.Exif()
    mark[0x0112] = 6
    Image.fromarray(picture(300, 200)).save(turned, exif=mark)
    sources = [large, tmp_path / "absent.png", broken, turned, picture(64, 64), b"no picture"]
    outcomes = list(stream_tiled(detector, sources, Tiles(SIDE), keep_image=True))
    assert [each.index for each in outcomes] == list(range(6))
    assert [each.source is source for each, source in zip(outcomes, sources, strict=True)] == [
        True
    ] * 6
    assert [each.size for each in outcomes] == [(200, 300), None, None, (300, 200), (64, 64), None]
    assert [each.error is None for each in outcomes] == [True, False, False, True, True, False]
    assert all(isinstance(each.error, ImageError) for each in outcomes if each.error)
    assert outcomes[3].image.shape == (300, 200, 3)
    with pytest.raises(ImageError, match=r"absent\.png' does not exist"):
        detector.detect_tiled([large, tmp_path / "absent.png"], SIDE)


def test_options_that_cannot_be_met_are_refused():
    assert tiles_of(None, None) is None
    assert tiles_of(512, None) == Tiles(512, 0.25)
    for side, overlap, said in (
        (8, None, "too small"),
        (512, 1.0, "overlap"),
        (None, 0.2, "--tile"),
    ):
        with pytest.raises(UsageError) as error:
            tiles_of(side, overlap)
        assert said in str(error.value)
