"""The checks that must hold for all 47 configurations; test_equality_*.py run them.

Two test files share the work, because a worker of ``make test`` takes whole files.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from effdet_deploy.pytorch.network import create_model, list_models
from effdet_deploy.pytorch.network.random_weights import randomize
from tests.pytorch.network.peers import (
    OUTPUT_TOLERANCE,
    effdet_twin,
    largest_difference,
    outputs,
    smallest_sizes,
    unseen_images,
)

LARGER_TWIN = re.compile(
    r"_ap$|_d[1-7]x?$|lite[1-4]x?$|_q2$|_em$|v2_ds$|120d$|mixdet_l$|darkdet53$|dext50$"
)
"""Configurations that differ from a smaller one only in numbers; only `make test-all` runs them."""
MIN_SPREAD = 1.0
"""The least spread of logits: if they were more alike, equal outputs would prove little."""


def configurations(*, of_tensorflow: bool) -> list[Any]:
    """Return the named configurations of one kind, as parameters of a test."""
    names = [name for name in list_models() if name.startswith("tf_") == of_tensorflow]
    return [
        pytest.param(name, marks=pytest.mark.slow if LARGER_TWIN.search(name) else ())
        for name in names
    ]


def assert_equal_to_effdet_and_scriptable(name: str) -> None:
    for image_size in smallest_sizes(name):
        network = create_model(name, image_size=image_size)
        randomize(network)
        network.eval()
        twin = effdet_twin(network)
        shapes = {key: value.shape for key, value in network.state_dict().items()}
        assert shapes == {key: value.shape for key, value in twin.state_dict().items()}

        images = unseen_images(network, 2)
        ours = outputs(network, images)
        logits = torch.cat([level.flatten() for level in ours[: len(ours) // 2]])
        assert logits.std() >= MIN_SPREAD
        assert largest_difference(ours, outputs(twin, images)) <= OUTPUT_TOLERANCE

    scripted = torch.jit.script(network)
    # Optimizing takes longer than all the rest; test_equality_sizes.py does it for a few networks.
    with torch.jit.optimized_execution(False):
        assert largest_difference(ours, outputs(scripted, images)) <= OUTPUT_TOLERANCE
