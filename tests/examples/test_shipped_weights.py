"""The shipped digits checkpoint is small, complete, says what it is, and detects digits."""

import json
from pathlib import Path

import pytest
import torch
from evaluate import Accuracy, evaluate
from safetensors import safe_open

from effdet_deploy.pytorch.network import create_model

WEIGHTS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits_d0.safetensors"
LARGEST_FILE = 8_000_000
SCENES = 24
LEAST_AP, LEAST_AP50 = 0.65, 0.82


@pytest.fixture(scope="module")
def accuracy() -> Accuracy:
    return evaluate(WEIGHTS, "test", seed=0, count=SCENES)


def test_the_file_is_small_and_names_variant_classes_and_size():
    assert WEIGHTS.stat().st_size <= LARGEST_FILE
    with safe_open(WEIGHTS, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["variant"] == "tf_efficientdet_d0"
    assert json.loads(metadata["labels"]) == list("0123456789")
    assert json.loads(metadata["category_ids"]) == list(range(1, 11))
    assert metadata["image_size"] == "256x256"
    assert {"seed", "phases"} <= json.loads(metadata["training"]).keys()


def test_the_weights_are_half_precision_finite_and_fit_our_model():
    with safe_open(WEIGHTS, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, tensor in state.items():
        if tensor.is_floating_point():
            assert tensor.dtype is torch.float16, name
            assert tensor.isfinite().all(), name
    create_model("d0", num_classes=10, image_size=256).load_state_dict(state, strict=True)


def test_it_detects_the_digits_of_unseen_handwriting(accuracy):
    assert accuracy.ap >= LEAST_AP
    assert accuracy.ap50 >= LEAST_AP50
