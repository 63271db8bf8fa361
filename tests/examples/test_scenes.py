"""The digit scenes are reproducible, labeled to the pixel, and share no digit between splits."""

import contextlib
import io
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from glyphs import SPLITS, glyph_indices
from PIL import Image
from pycocotools.coco import COCO
from scenes import CATEGORY_IDS, CLASS_NAMES, SCENE_SIZE, Scene, compose_scene, write_scenes

SKLEARN_DIGITS = 1797
SCENES_PER_SPLIT = 8
MOST_OVERLAP = 0.2


@pytest.fixture(scope="module")
def scenes() -> list[tuple[str, Scene]]:
    return [
        (split, compose_scene(split, 3, index))
        for split in SPLITS
        for index in range(SCENES_PER_SPLIT)
    ]


def test_every_glyph_belongs_to_exactly_one_split():
    for one, other in combinations(SPLITS, 2):
        assert not np.intersect1d(glyph_indices(one), glyph_indices(other)).size
    assert sum(len(glyph_indices(split)) for split in SPLITS) == SKLEARN_DIGITS


def test_scenes_use_only_the_glyphs_of_their_split(scenes):
    for split, scene in scenes:
        assert np.isin(scene.glyphs, glyph_indices(split)).all()


def test_an_unknown_split_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="train, val, test"):
        glyph_indices("dev")


def test_the_same_arguments_give_the_same_bytes_in_another_process(tmp_path: Path):
    script = Path(sys.modules["scenes"].__file__)
    command = [sys.executable, str(script), "--split", "val", "--seed", "5", "--count", "2"]
    subprocess.run([*command, str(tmp_path / "other")], check=True, capture_output=True)
    write_scenes("val", 5, 2, tmp_path / "here")
    names = sorted(path.relative_to(tmp_path / "here") for path in tmp_path.rglob("here/**/*.*"))
    assert len(names) == 3
    for name in names:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


@pytest.mark.parametrize("other", [("val", 3, 0), ("train", 4, 0), ("train", 3, 1)])
def test_split_seed_and_index_each_change_the_scene(other):
    scene = compose_scene("train", 3, 0)
    assert not np.array_equal(scene.image, compose_scene(*other).image)


def test_boxes_are_tight_around_the_visible_digit_and_inside_the_picture(scenes):
    for _, scene in scenes:
        assert len(scene.boxes) == len(scene.labels) == len(scene.glyphs) > 0
        for row, (x1, y1, x2, y2) in enumerate(scene.boxes.astype(int)):
            assert 0 <= x1 < x2 <= SCENE_SIZE
            assert 0 <= y1 < y2 <= SCENE_SIZE
            shows = scene.owners == row
            inside = shows[y1:y2, x1:x2]
            assert inside.sum() == shows.sum()
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()


def test_boxes_overlap_only_a_little(scenes):
    touching = 0
    for _, scene in scenes:
        areas = np.prod(scene.boxes[:, 2:] - scene.boxes[:, :2], axis=1)
        for one, other in combinations(range(len(scene.boxes)), 2):
            low = np.maximum(scene.boxes[one, :2], scene.boxes[other, :2])
            high = np.minimum(scene.boxes[one, 2:], scene.boxes[other, 2:])
            shared = np.prod(np.maximum(high - low, 0))
            assert shared / (areas[one] + areas[other] - shared) <= MOST_OVERLAP
            touching += shared > 0
    assert touching > 0


def test_a_smaller_scene_holds_digits_that_fit_it():
    scene = compose_scene("train", 0, 0, size=128)
    assert scene.image.shape == (128, 128, 3)
    assert len(scene.boxes) > 0
    assert scene.boxes.max() <= 128


def test_the_annotations_are_coco_and_name_every_category(tmp_path: Path):
    write_scenes("test", 0, 3, tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(tmp_path / "annotations.json")
    categories = coco.loadCats(coco.getCatIds())
    assert [row["name"] for row in categories] == list(CLASS_NAMES)
    assert [row["id"] for row in categories] == list(CATEGORY_IDS)
    for image_id in coco.getImgIds():
        record = coco.loadImgs(image_id)[0]
        picture = Image.open(tmp_path / "images" / record["file_name"])
        assert picture.size == (record["width"], record["height"])
        scene = compose_scene("test", 0, image_id - 1)
        assert np.array_equal(np.asarray(picture), scene.image)
        rows = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
        assert [row["category_id"] - 1 for row in rows] == scene.labels.tolist()
        x, y, width, height = np.array([row["bbox"] for row in rows]).T
        assert np.array_equal(np.stack([x, y, x + width, y + height], axis=1), scene.boxes)
        assert all(0 < row["area"] <= row["bbox"][2] * row["bbox"][3] for row in rows)
