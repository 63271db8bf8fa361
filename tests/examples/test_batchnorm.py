"""Measured BatchNorm statistics are those of one large batch; frozen layers keep theirs."""

from pathlib import Path

import pytest
import torch
from batchnorm import layers_to_freeze, measure_statistics
from torch import nn
from train import Phase, TrainingOptions, restore_checkpoint, start, train

VARIANCE_TOLERANCE = 1e-2
"""Training divides by the biased variance but stores the unbiased one, here 0.1% larger."""


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=8, padding=1),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
    )


def test_measured_statistics_make_evaluation_equal_training_on_the_batch(network):
    images = 3 * torch.randn(16, 3, 64, 64) + 1
    measure_statistics(network, images)
    assert [layer.momentum for layer in network if isinstance(layer, nn.BatchNorm2d)] == [0.1, 0.1]
    in_training = network.train()(images)
    measure_statistics(network, images)
    assert (network.eval()(images) - in_training).abs().max() < VARIANCE_TOLERANCE


@pytest.mark.parametrize(
    ("frozen", "size", "expected"),
    [("none", 64, []), ("coarse", 64, [3]), ("coarse", 128, []), ("all", 128, [1, 3])],
)
def test_coarse_freezes_layers_whose_maps_have_fewer_than_64_cells(network, frozen, size, expected):
    network.train()
    chosen = layers_to_freeze(network, frozen, size)
    assert [id(layer) for layer in chosen] == [id(network[index]) for index in expected]
    assert network.training


def test_frozen_layers_keep_their_statistics_in_a_resumed_run_too(tmp_path: Path):
    options = TrainingOptions(phases=(Phase(2, 2, 128, "coarse"),), warmup_steps=1)
    train(start(options), options, tmp_path, until=1, workers=0)
    first = restore_checkpoint(tmp_path / "checkpoint.pt", options)
    before = {name: tensor.clone() for name, tensor in first.model.state_dict().items()}
    after = train(first, options, tmp_path, workers=0).model.state_dict()

    def changed(name: str) -> bool:
        return not torch.equal(before[name], after[name])

    assert changed("backbone.bn1.running_mean")
    assert changed("class_net.bn_rep.0.0.bn.running_mean")
    assert not changed("class_net.bn_rep.0.4.bn.running_mean")
    assert changed("class_net.bn_rep.0.4.bn.weight")
