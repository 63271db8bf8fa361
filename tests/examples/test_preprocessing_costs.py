"""The digits detector finds most where pictures are prepared as they were in its training."""

import pytest
from preprocessing import CHANGES, RIGHT, WEIGHTS, accuracy, frame

from effdet_deploy.pytorch.weights.loading import build_model

SCENES = 10
LEAST_LOSS = {"--resize stretch": 2.0, "--interpolation linear": 8.0, "--mean 0 --std 1": 30.0}
"""The least loss in points of mAP; over 48 scenes the loss is about twice as large or more.

The digits have random colors and places, so swapped channels, centered pictures and a black margin
cost nearly nothing and are not tested."""


@pytest.fixture(scope="module")
def measured() -> dict[str, float]:
    loaded = build_model(None, str(WEIGHTS))
    scenes = [frame(index) for index in range(SCENES)]
    return {name: accuracy(loaded, CHANGES[name], scenes) for name in (RIGHT, *LEAST_LOSS)}


def test_the_right_preprocessing_detects_digits(measured: dict[str, float]) -> None:
    assert measured[RIGHT] > 55


@pytest.mark.parametrize("wrong", LEAST_LOSS)
def test_the_right_preprocessing_beats_a_wrong_one(measured: dict[str, float], wrong: str) -> None:
    assert measured[RIGHT] - measured[wrong] > LEAST_LOSS[wrong]
