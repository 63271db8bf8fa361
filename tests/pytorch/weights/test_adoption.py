"""A model in memory, ours or effdet's, is exported as it is."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import effdet
import pytest
import torch
from effdet.bench import DetBenchPredict
from omegaconf import OmegaConf
from torch import nn

from effdet_deploy.errors import UsageError, WeightsError
from effdet_deploy.pytorch.weights import adoption
from effdet_deploy.pytorch.weights.given import find_network
from effdet_deploy.pytorch.weights.loading import loaded_module
from tests.networks import conditioned

if TYPE_CHECKING:
    from effdet_deploy.pytorch.network import EfficientDet


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    network = effdet.create_model(
        "efficientdet_w0", num_classes=7, image_size=(128, 192), pretrained_backbone=False
    )
    return network.eval()


def adopt_module(module: nn.Module) -> EfficientDet:
    return adoption.adopt_module(find_network(module))[0]


def outputs(network: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        classes, boxes = network(pixels)
    return torch.cat([each.flatten() for each in (*classes, *boxes)])


@pytest.mark.parametrize(
    "wrap",
    [lambda each: each, DetBenchPredict, nn.DataParallel],
    ids=["network", "effdet's bench", "data parallel"],
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


def test_a_scripted_module_is_refused() -> None:
    scripted = torch.jit.script(copy.deepcopy(conditioned("tf_efficientdet_lite0")))
    with pytest.raises(UsageError, match="neither an effdet-deploy nor an effdet model"):
        adopt_module(scripted)


def test_an_effdet_model_gives_its_own_preprocessing() -> None:
    config = effdet.get_efficientdet_config("efficientdet_w0")
    config.image_size = (128, 128)
    config.mean = config.std = (0.5, 0.25, 0.125)
    config.fill_color = 7
    config.norm_kwargs.eps = 0.01
    adopted = adopt_module(effdet.EfficientDet(config, pretrained_backbone=False))
    assert adopted.config.mean == adopted.config.std == (0.5, 0.25, 0.125)
    assert adopted.config.fill_color == (7, 7, 7)
    assert adopted.config.norm_eps == 0.01


def test_an_effdet_model_with_a_pyramid_of_its_own_is_refused() -> None:
    config = effdet.get_efficientdet_config("efficientdet_w0")
    network = effdet.EfficientDet(config, pretrained_backbone=False)
    OmegaConf.set_readonly(network.config, False)
    network.config.fpn_config = {"nodes": [{"reduction": 8, "inputs_offsets": [0, 1]}]}
    with pytest.raises(UsageError, match="its own fpn_config"):
        adopt_module(network)


def test_our_model_in_half_precision_is_taken_in_float32() -> None:
    adopted = adopt_module(copy.deepcopy(conditioned("tf_efficientdet_lite0")).half())
    assert {each.dtype for each in adopted.parameters()} == {torch.float32}


def test_a_model_in_memory_with_values_that_are_not_finite_is_refused() -> None:
    network = copy.deepcopy(conditioned("tf_efficientdet_lite0"))
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = torch.nan
    with pytest.raises(WeightsError, match="NaN or infinite"):
        loaded_module(network)
