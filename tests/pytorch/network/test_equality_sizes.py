"""Other image sizes and tracing; and a test that the comparison notices a wrong weight."""

from __future__ import annotations

import copy

import pytest
import torch

from effdet_deploy.pytorch.network import EfficientDet, list_models
from tests.networks import PYRAMIDS, conditioned
from tests.pytorch.network.peers import (
    OUTPUT_TOLERANCE,
    effdet_twin,
    largest_difference,
    outputs,
    smallest_sizes,
    unseen_images,
)


@pytest.mark.parametrize("image_size", [(448, 448), (320, 448), (333, 500)])
@pytest.mark.parametrize("name", ["tf_efficientdet_lite0", "efficientdet_q1"])
def test_outputs_equal_effdet_at_sizes_that_halve_unevenly(name, image_size):
    network = conditioned(name, image_size)
    images = unseen_images(network)
    difference = largest_difference(outputs(network, images), outputs(effdet_twin(network), images))
    assert difference <= OUTPUT_TOLERANCE


def test_swapping_two_fusion_weights_is_noticed():
    network = copy.deepcopy(conditioned("tf_efficientdet_d0"))
    twin = effdet_twin(network)
    weights = network.fpn.cell[0].fnode[0].combine.edge_weights
    with torch.no_grad():
        weights.copy_(weights.flip(0))
    images = unseen_images(network)
    assert largest_difference(outputs(network, images), outputs(twin, images)) > OUTPUT_TOLERANCE


@pytest.mark.parametrize(
    "name",
    [
        name if name in PYRAMIDS else pytest.param(name, marks=pytest.mark.slow)
        for name in list_models()
    ],
)
def test_traced_and_optimized_scripted_modules_give_equal_outputs_on_another_picture(name):
    side, _ = smallest_sizes(name)
    network = conditioned(name, side)
    images = unseen_images(network, 2)
    expected = outputs(network, images)
    traced = torch.jit.trace(network, images[:1], check_trace=False)
    for module in (traced, torch.jit.script(network)):
        # TorchScript optimizes for the second run.
        for _ in range(2):
            assert largest_difference(expected, outputs(module, images)) <= OUTPUT_TOLERANCE


def test_a_network_in_bfloat16_computes_in_bfloat16():
    network = EfficientDet(conditioned("tf_efficientdet_d0").config).eval().to(torch.bfloat16)
    images = unseen_images(network).to(torch.bfloat16)
    assert {each.dtype for each in outputs(network, images)} == {torch.bfloat16}
