from __future__ import annotations

import pytest
from torch import nn

from effdet_deploy.pytorch.network.calls import calls_of
from tests.networks import conditioned


@pytest.mark.parametrize("name", ["tf_efficientdet_lite0", "efficientdet_q1", "resdet50"])
def test_every_batch_norm_is_matched_with_the_convolution_before_it(name):
    network = conditioned(name)
    norms = [call for call in calls_of(network) if isinstance(call.module, nn.BatchNorm2d)]
    assert {call.spot.module for call in norms} == {
        path for path, each in network.named_modules() if isinstance(each, nn.BatchNorm2d)
    }
    for call in norms:
        conv = network.get_submodule(call.conv.module)
        assert isinstance(conv, nn.Conv2d)
        assert conv.out_channels == call.module.num_features


def test_a_head_is_called_once_for_each_level():
    network = conditioned("tf_efficientdet_lite0")
    spots = [call.spot for call in calls_of(network) if call.spot.module == "box_net.predict"]
    assert [spot.call for spot in spots] == list(range(network.config.num_levels))


def test_the_network_itself_is_not_changed():
    network = conditioned("tf_efficientdet_lite0")
    before = {name: each.clone() for name, each in network.state_dict().items()}
    calls_of(network)
    assert all(each.equal(before[name]) for name, each in network.state_dict().items())
    assert not any(each._forward_hooks for each in network.modules())
