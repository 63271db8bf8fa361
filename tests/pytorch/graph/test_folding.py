"""Folding and preprocessing must not change what the network computes."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from effdet_deploy.artifact.classes import class_specs
from effdet_deploy.artifact.spec import ChannelOrder, InputKind, InputSpec, OutputSpec
from effdet_deploy.detection.letterbox import to_input
from effdet_deploy.exporters.source import describe
from effdet_deploy.pytorch.graph import fold_for_inference
from effdet_deploy.pytorch.graph.pipeline import HeadsPipeline
from effdet_deploy.pytorch.network import get_config
from effdet_deploy.pytorch.reference import EagerReference
from effdet_deploy.synthetic import structured_pictures
from tests.networks import conditioned

FLOAT64_TOLERANCE = 1e-8
"""Folding is exact algebra, so in float64 only rounding errors of about 1e-13 remain."""
COVERED = (
    "tf_efficientdet_d0",
    "efficientdet_q1",
    "resdet50",
    "tf_efficientdet_lite0",
    "mobiledetv3_large",
    "cspresdext50pan",
)
MIXED_CONVOLUTIONS = 41
"""How many BatchNorms stay: those after a MixedConv2d, which joins several convolutions."""


def heads_of(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the level maps of both heads in the order of a folded network: positions, channels."""
    with torch.no_grad():
        heads = [torch.cat([each.flatten(2) for each in levels], dim=2) for levels in network(x)]
    return torch.cat([each.transpose(1, 2).flatten() for each in heads])


def joined(folded: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([each.flatten() for each in folded(x)])


@pytest.mark.parametrize("name", COVERED)
def test_folding_leaves_no_batch_norm_and_no_parameterized_fusion_and_changes_no_number(
    name: str,
) -> None:
    network = conditioned(name).double()
    spec = InputSpec(128, 128, kind="normalized")
    folded = fold_for_inference(network, spec)
    x = torch.randn(1, 3, 128, 128, dtype=torch.float64)
    assert (heads_of(network, x) - joined(folded, x)).abs().max() < FLOAT64_TOLERANCE
    assert not [each for each in folded.modules() if isinstance(each, nn.BatchNorm2d)]
    assert not [each for each, _ in folded.named_parameters() if "edge_weights" in each]
    network.float()


def test_the_network_itself_is_not_changed_by_folding() -> None:
    network = conditioned("tf_efficientdet_d0")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fold_for_inference(network, InputSpec(128, 128))
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_mixed_convolutions_keep_their_batch_norms() -> None:
    folded = fold_for_inference(conditioned("mixdet_m"), InputSpec(128, 128))
    left = [each for each in folded.modules() if isinstance(each, nn.BatchNorm2d)]
    assert len(left) == MIXED_CONVOLUTIONS


@pytest.mark.parametrize("order", get_args(ChannelOrder))
@pytest.mark.parametrize("kind", get_args(InputKind))
def test_every_input_kind_and_channel_order_gives_the_numbers_of_eager_pytorch(
    kind: InputKind, order: ChannelOrder
) -> None:
    network = conditioned("tf_efficientdet_lite0", num_classes=5)
    base = get_config("tf_efficientdet_lite0")
    spec = describe(
        network.config,
        base,
        class_specs(5),
        OutputSpec(nms="none"),
        input_kind=kind,
        channel_order=order,
    )
    batch = to_input(structured_pictures(2, 128, 128, seed=1), spec.input)
    pipeline = HeadsPipeline(fold_for_inference(network, spec.input), spec)
    with torch.no_grad():
        logits, regression = pipeline(torch.from_numpy(np.ascontiguousarray(batch)))
    expected = EagerReference(network, spec).heads(batch)
    np.testing.assert_allclose(logits.numpy(), expected["class_logits"], atol=1e-3)
    np.testing.assert_allclose(regression.numpy(), expected["box_regression"], atol=1e-3)


def test_channel_orders_give_different_numbers_so_the_test_above_can_fail() -> None:
    network = conditioned("tf_efficientdet_lite0", num_classes=5)
    base = get_config("tf_efficientdet_lite0")
    rgb, bgr = (
        describe(
            network.config,
            base,
            class_specs(5),
            OutputSpec(),
            input_kind="normalized",
            channel_order=order,
        )
        for order in ("rgb", "bgr")
    )
    batch = to_input(structured_pictures(1, 128, 128, seed=1), rgb.input)
    straight, swapped = (
        EagerReference(network, each).heads(batch)["class_logits"] for each in (rgb, bgr)
    )
    assert np.abs(straight - swapped).max() > 0.1
