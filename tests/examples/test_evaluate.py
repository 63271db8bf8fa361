"""To measure the digits checkpoint, effdet's rows are turned into COCO results and scored."""

from pathlib import Path

import numpy as np
import pytest
import torch
from evaluate import coco_results, load_bench, measure, predict
from scenes import Scene, compose_scene
from train import Phase, TrainingOptions, export_weights, start

SCENES = 4
DETECTION_ROWS = 100


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [compose_scene("val", 1, index) for index in range(SCENES)]


def rows_of_truth(scene: Scene) -> torch.Tensor:
    """Perfect detections in effdet's format: x1, y1, x2, y2, score, class from 1, zero padding."""
    rows = np.zeros((DETECTION_ROWS, 6), dtype=np.float32)
    count = len(scene.boxes)
    rows[:count, :4], rows[:count, 4], rows[:count, 5] = scene.boxes, 0.9, scene.labels + 1
    return torch.from_numpy(rows)


def test_the_truth_itself_scores_one(scenes):
    rows = torch.stack([rows_of_truth(scene) for scene in scenes])
    accuracy = measure(scenes, coco_results(rows, first_image_id=1))
    assert (accuracy.ap, accuracy.ap50, accuracy.ap75) == (1.0, 1.0, 1.0)


def test_wrong_digits_score_almost_nothing(scenes):
    rows = torch.stack([rows_of_truth(scene) for scene in scenes])
    rows[..., 5] = torch.where(rows[..., 5] > 0, rows[..., 5] % 10 + 1, 0)
    assert measure(scenes, coco_results(rows, first_image_id=1)).ap50 < 0.1


def test_boxes_a_fifth_too_wide_lose_only_the_strict_thresholds(scenes):
    rows = torch.stack([rows_of_truth(scene) for scene in scenes])
    rows[..., 2] += (rows[..., 2] - rows[..., 0]) / 5
    accuracy = measure(scenes, coco_results(rows, first_image_id=1))
    assert accuracy.ap50 == 1.0
    assert 0.6 < accuracy.ap < 0.9


def test_an_exported_checkpoint_loads_into_effdet_and_answers_in_its_form(tmp_path: Path, scenes):
    options = TrainingOptions(phases=(Phase(1, 1, 128),))
    export_weights(start(options).average, options, tmp_path / "weights.safetensors")
    bench = load_bench(tmp_path / "weights.safetensors")
    small = [compose_scene("val", 1, index, size=128) for index in range(2)]
    rows = predict(bench, small)
    assert rows.shape == (2, DETECTION_ROWS, 6)
    assert rows[..., :4].min() >= 0
    assert rows[..., :4].max() <= 128
    assert set(rows[..., 5].unique().tolist()) <= set(range(1, 11))
