"""Bisecting finds the layers whose precision costs the accuracy, in few measurements.

A layer is exact if it computes in float32, as in the reference.
"""

from __future__ import annotations

import math

import onnx
import pytest
from onnx import numpy_helper

from effdet_deploy.diagnosis.bisecting import GAIN_DB, bisect
from effdet_deploy.diagnosis.grafting import HalfGrafting, HeadsMeter, Int8Grafting
from effdet_deploy.errors import UsageError
from effdet_deploy.onnxgraph.running import graph_inputs
from effdet_deploy.precision.fp16 import to_half
from effdet_deploy.precision.int8.quantizer import Quantizer, Recipe
from effdet_deploy.synthetic import structured_pictures
from tests.precision.tiny_network import SIDE, network_spec, tiny_network

BATCHES = list(graph_inputs(structured_pictures(2, SIDE, SIDE, 5), network_spec()))
CLIPPED = "backbone.blocks.0.0.conv_pw.conv"
CLIP = 30.0
"""Tests divide the range of the layer CLIPPED by this factor, as a bad calibration would."""
OVERFLOWING_GAIN = 3e4
# Two graphs that agree this well differ only by the rounding of float32 sums.
SAME_DB = 100.0


@pytest.fixture(scope="module", params=["openvino", "onnxruntime", "tensorrt"])
def quantized(request, tmp_path_factory):
    quantizer = Quantizer(
        tiny_network(), BATCHES, request.param, Recipe(), tmp_path_factory.mktemp("cache")
    )
    model = quantizer.quantized(quantizer.default())
    if request.param == "tensorrt":
        to_half(model)
    return model, quantizer.default()


@pytest.fixture(scope="module")
def meter():
    return HeadsMeter(tiny_network(), BATCHES)


def constant(model, name):
    return next(each for each in model.graph.initializer if each.name == name)


def with_clipped_range(model):
    """Let one layer's input range end far too early, as a bad calibration does."""
    planted = onnx.ModelProto()
    planted.CopyFrom(model)
    node = next(each for each in planted.graph.node if each.name == CLIPPED)
    scale = constant(planted, f"{node.input[0].removesuffix('.dequantize')}.scale")
    values = numpy_helper.to_array(scale)
    scale.CopyFrom(numpy_helper.from_array((values / CLIP).astype(values.dtype), scale.name))
    return planted


def halved(**fields):
    """Return the tiny network in FP16."""
    model = tiny_network(**fields)
    to_half(model)
    return model


def test_the_layers_of_an_int8_graph_are_its_quantized_convolutions(quantized):
    model, chosen = quantized
    assert set(Int8Grafting(tiny_network(), model).layers) == set(chosen)


def test_with_every_layer_exact_only_the_rest_of_the_graph_differs(quantized, meter):
    model, chosen = quantized
    grafting = Int8Grafting(tiny_network(), model)
    half = any(t.data_type == onnx.TensorProto.FLOAT16 for t in model.graph.initializer)
    exact = meter.snr_db(grafting.with_exact(chosen))
    assert exact > (40.0 if half else SAME_DB)
    assert meter.snr_db(grafting.with_exact(())) < exact


def test_a_layer_with_a_clipped_range_is_the_only_layer_found(quantized, meter):
    model, chosen = quantized
    said = []
    grafting = Int8Grafting(tiny_network(), with_clipped_range(model))
    found = bisect(grafting, meter.snr_db, "int8", said.append)
    assert [each.layer for each in found.layers] == [CLIPPED]
    assert found.is_explained
    assert found.is_smallest
    assert found.before_db < found.tolerance_db <= found.after_db
    assert found.layers[0].alone_db < found.tolerance_db
    assert found.total == len(chosen)
    assert len(said) == found.measurements <= found.bound


def test_a_layer_with_an_outlier_in_its_weights_is_found_first(meter, tmp_path):
    reference = tiny_network()
    weight = constant(reference, f"{CLIPPED}.weight")
    values = numpy_helper.to_array(weight).copy()
    values[:, 0] *= 300
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    quantizer = Quantizer(
        reference, BATCHES, "openvino", Recipe(compensate=False, correct_bias=False), tmp_path
    )
    grafting = Int8Grafting(reference, quantizer.quantized(quantizer.default()))
    found = bisect(grafting, HeadsMeter(reference, BATCHES).snr_db, "int8")
    assert CLIPPED in [each.layer for each in found.layers]
    assert found.layers[0].layer == CLIPPED


def test_the_two_layers_around_an_fp16_overflow_are_found():
    reference = tiny_network(gain=OVERFLOWING_GAIN)
    grafting = HalfGrafting(reference, halved(gain=OVERFLOWING_GAIN))
    found = bisect(grafting, HeadsMeter(reference, BATCHES).snr_db, "fp16")
    # The layer that computes the large value, and the layer that reads it.
    assert {each.layer for each in found.layers} == {"backbone.conv_stem", "backbone.shrink"}
    assert found.is_smallest
    assert found.before_db == -math.inf
    assert found.after_db >= found.tolerance_db
    assert "not finite" in found.lines()[0]


def test_imitated_fp16_loses_precision_and_loses_none_with_every_layer_exact(meter):
    grafting = HalfGrafting(tiny_network(), halved())
    imitated = meter.snr_db(grafting.with_exact(()))
    assert 50 < imitated < SAME_DB
    assert meter.snr_db(grafting.with_exact(grafting.layers)) == math.inf


def test_a_layer_that_the_file_keeps_in_float32_is_not_searched():
    candidate = tiny_network()
    to_half(candidate, ["backbone.conv_stem.conv"])
    assert "backbone.conv_stem" not in HalfGrafting(tiny_network(), candidate).layers


class Network:
    """A stand-in: every layer that is not exact adds its own noise to the heads."""

    def __init__(self, noise: dict[str, float], rest: float = 0.0) -> None:
        self.layers = tuple(noise)
        self._noise, self._rest = noise, rest

    def with_exact(self, exact):
        left = self._rest + sum(self._noise[each] for each in self.layers if each not in exact)
        return -10 * math.log10(left) if left else math.inf


def searched(network, kind="int8", **options):
    return bisect(network, lambda level: level, kind, **options)


def noisy(loud, count=60, floor=1e-9):
    """Return the noise of ``count`` layers: ``loud`` gives it by index, others have ``floor``."""
    return {f"fpn.cell.{index % 4}.conv_{index}": loud.get(index, floor) for index in range(count)}


def test_several_layers_are_found_among_many_in_few_measurements():
    found = searched(Network(noisy({7: 0.3, 20: 0.2, 41: 0.4})))
    assert sorted(each.layer[-2:] for each in found.layers) == ["20", "41", "_7"]
    assert found.is_smallest
    # Trying the 60 layers one by one would take 60 measurements, and trying pairs many more.
    assert found.measurements < 60


def test_the_worst_layer_comes_first():
    alone = [each.alone_db for each in searched(Network(noisy({7: 0.3, 20: 0.2, 41: 0.4}))).layers]
    assert alone == sorted(alone)


def test_within_the_tolerance_nine_tenths_of_the_noise_are_explained():
    """If a file is good enough, the goal is 10 dB more, where a tenth of the noise is left."""
    found = searched(Network(noisy({3: 1e-3, 30: 1e-6})))
    assert found.before_db > found.tolerance_db
    assert found.goal_db == found.before_db + GAIN_DB
    assert [each.layer[-2:] for each in found.layers] == ["_3"]


def test_a_loss_that_precision_does_not_cause_is_reported_as_such():
    found = searched(Network(noisy({3: 0.1}), rest=0.5))
    assert not found.is_explained
    assert found.layers == ()
    assert "precision does not cause the loss" in " ".join(found.lines())


def test_a_file_without_any_loss_has_nothing_to_explain():
    found = searched(Network(noisy({}, floor=0.0)))
    assert found.layers == ()
    assert found.measurements <= 2
    assert len(found.lines()) == 1


@pytest.mark.parametrize("bound", [6, 12, 20])
def test_with_a_bound_on_measurements_a_set_is_found_that_may_be_too_large(bound):
    loud = dict.fromkeys(range(0, 60, 7), 0.1)
    found = searched(Network(noisy(loud)), bound=bound)
    assert found.measurements <= bound
    assert found.is_explained
    assert not found.is_smallest
    assert "a smaller set may be enough" in " ".join(found.lines())


def test_the_json_of_a_bisection_holds_no_infinity():
    import json

    reference = tiny_network(gain=OVERFLOWING_GAIN)
    grafting = HalfGrafting(reference, halved(gain=OVERFLOWING_GAIN))
    found = bisect(grafting, HeadsMeter(reference, BATCHES).snr_db, "fp16")
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert json.loads(text)["before_db"] is None


def test_files_of_different_networks_are_refused(quantized):
    model, _ = quantized
    stranger = tiny_network()
    for node in stranger.graph.node:
        node.name = node.name.replace("fpn", "pan")
    with pytest.raises(UsageError, match="is not in the reference"):
        Int8Grafting(stranger, model)
