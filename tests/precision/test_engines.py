"""NVIDIA's builder makes strongly typed engines of our files, in the requested types."""

from __future__ import annotations

import pytest

from effdet_deploy.onnxgraph.running import graph_inputs
from effdet_deploy.precision.fp16 import find_unfit, nodes_touching, to_half
from effdet_deploy.synthetic import structured_pictures
from tests.precision.rtx import Build
from tests.precision.tiny_network import SIDE, network_spec, tiny_network

OVERFLOWING_GAIN = 3e4
BATCHES = list(graph_inputs(structured_pictures(2, SIDE, SIDE, 5), network_spec()))


@pytest.fixture(scope="module")
def fp16_build():
    model = tiny_network()
    to_half(model)
    return Build(model.SerializeToString())


def test_an_fp16_graph_builds_strongly_typed(fp16_build):
    assert fp16_build.errors == []
    assert fp16_build.engine is not None


def test_every_convolution_of_an_fp16_engine_is_half(fp16_build):
    assert fp16_build.correlation_types() == {"Half"}


def test_a_convolution_that_overflows_is_float_in_the_engine():
    model = tiny_network(gain=OVERFLOWING_GAIN)
    unfit = find_unfit(model, BATCHES)
    to_half(model, nodes_touching(model, [each.value for each in unfit]))
    assert "Float" in Build(model.SerializeToString()).correlation_types()
