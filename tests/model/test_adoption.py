"""A model that is already in memory, ours or effdet's, is taken as it is."""

from __future__ import annotations

import effdet
import pytest
import torch
from effdet.bench import DetBenchPredict
from torch import nn

from effdet_deploy.errors import UsageError
from effdet_deploy.model.adoption import adopt_module
from tests.networks import conditioned


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    network = effdet.create_model(
        "efficientdet_w0", num_classes=7, image_size=(128, 192), pretrained_backbone=False
    )
    return network.eval()


def outputs(network: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        classes, boxes = network(pixels)
    return torch.cat([each.flatten() for each in (*classes, *boxes)])


@pytest.mark.parametrize(
    "wrap",
    [lambda each: each, DetBenchPredict, nn.DataParallel],
    ids=["network", "bench", "data parallel"],
)
def test_an_effdet_model_gives_its_own_numbers(theirs: nn.Module, wrap: type) -> None:
    adopted = adopt_module(wrap(theirs))
    pixels = torch.randn(1, 3, 128, 192)
    assert adopted.config.num_classes == 7
    assert adopted.config.image_size == (128, 192)
    torch.testing.assert_close(outputs(adopted, pixels), outputs(theirs, pixels))


def test_our_own_model_is_copied() -> None:
    network = conditioned("tf_efficientdet_lite0")
    adopted = adopt_module(network)
    assert adopted is not network
    assert adopted.state_dict().keys() == network.state_dict().keys()


def test_any_other_module_is_refused() -> None:
    with pytest.raises(UsageError, match="Linear"):
        adopt_module(nn.Linear(1, 1))
