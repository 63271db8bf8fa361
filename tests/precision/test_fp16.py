from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from effdet_deploy.artifact.spec import INPUT_NAME
from effdet_deploy.onnxgraph.running import graph_inputs, open_session
from effdet_deploy.precision.fp16 import find_unfit, nodes_touching, to_half
from effdet_deploy.synthetic import structured_pictures
from tests.precision.tiny_network import SIDE, network_spec, tiny_network

# The error of eleven bits of mantissa after a dozen layers.
HALF_ERROR = 0.02
OVERFLOWING_GAIN = 3e4

BATCHES = list(graph_inputs(structured_pictures(2, SIDE, SIDE, 5), network_spec()))


def heads(model):
    return open_session(model).run(None, {INPUT_NAME: BATCHES[0]})


def types(model):
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    return {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}


def halved(**fields):
    model = tiny_network(**fields)
    to_half(model)
    return model


@pytest.fixture(scope="module")
def half():
    return halved()


def test_the_graph_is_valid_and_gives_nearly_the_same_heads(half):
    onnx.checker.check_model(half, full_check=True)
    for mine, exact in zip(heads(half), heads(tiny_network()), strict=True):
        assert mine.dtype == np.float32
        assert 0 < np.abs(mine - exact).max() < HALF_ERROR


def test_every_convolution_computes_in_float16(half):
    found = types(half)
    for node in half.graph.node:
        if node.op_type == "Conv":
            assert found[node.output[0]] == TensorProto.FLOAT16, node.name


def test_preprocessing_and_outputs_stay_float32(half):
    found = types(half)
    assert found["preprocess.sub"] == TensorProto.FLOAT
    assert all(o.type.tensor_type.elem_type == TensorProto.FLOAT for o in half.graph.output)


def test_casts_are_only_at_the_borders_and_are_named_after_the_value(half):
    casts = {node.name for node in half.graph.node if node.op_type == "Cast"}
    assert casts == {
        "preprocess.cast",
        "preprocess.sub.to_fp16",
        "class_logits.reshape.to_fp32",
        "box_regression.reshape.to_fp32",
    }


def test_node_names_stay():
    before = [node.name for node in tiny_network().graph.node]
    after = [node.name for node in halved().graph.node]
    assert [name for name in after if name in set(before)] == before


def test_the_scales_of_a_resize_stay_float32(half):
    scales = next(tensor for tensor in half.graph.initializer if tensor.name == "scales")
    assert scales.data_type == TensorProto.FLOAT


def test_a_network_that_fits_float16_keeps_nothing_in_float32():
    assert find_unfit(tiny_network(), BATCHES) == []


def test_an_overflow_is_found_although_the_runtime_computes_in_float32():
    unfit = {each.value: each.reason for each in find_unfit(tiny_network(gain=3e4), BATCHES)}
    assert "backbone.conv_stem.conv" in unfit
    assert unfit["backbone.conv_stem.conv"].startswith("reaches")


def test_an_overflowing_layer_stays_float32_and_the_others_do_not():
    model = tiny_network(gain=OVERFLOWING_GAIN)
    kept = nodes_touching(model, [each.value for each in find_unfit(model, BATCHES)])
    exact = heads(model)
    to_half(model, kept)
    found = types(model)
    assert found["backbone.conv_stem.conv"] == TensorProto.FLOAT
    assert found["fpn.cell.0.fine.conv_pw"] == TensorProto.FLOAT16
    for mine, reference in zip(heads(model), exact, strict=True):
        assert np.abs(mine - reference).max() < HALF_ERROR


def test_a_margin_is_left_for_brighter_pictures():
    largest = 65504 / 3
    gain = largest / np.abs(_stem_output()).max()
    assert "backbone.conv_stem.conv" in {
        each.value for each in find_unfit(tiny_network(gain=float(gain)), BATCHES)
    }


def _stem_output():
    model = tiny_network(gain=1.0)
    stem = onnx.helper.make_tensor_value_info("backbone.conv_stem.conv", TensorProto.FLOAT, None)
    model.graph.output.append(stem)
    session = open_session(model)
    return [session.run(["backbone.conv_stem.conv"], {INPUT_NAME: each})[0] for each in BATCHES]


def test_weights_that_would_flush_to_zero_stay_float32():
    model = tiny_network()
    name = "backbone.blocks.0.0.conv_pw.conv.weight"
    tensor = next(each for each in model.graph.initializer if each.name == name)
    tiny = numpy_helper.to_array(tensor) * np.float32(1e-7)
    tensor.CopyFrom(numpy_helper.from_array(tiny, name))
    unfit = {each.value: each.reason for each in find_unfit(model, BATCHES)}
    assert "would lose" in unfit[name]
    assert "backbone.blocks.0.0.conv_pw.conv" in nodes_touching(model, unfit)


def test_a_constant_shared_with_float32_nodes_exists_in_both_types():
    model = tiny_network()
    kept = ["class_net.predict"]
    to_half(model, kept)
    forms = {
        t.name: t.data_type for t in model.graph.initializer if "class_net.predict.w" in t.name
    }
    assert forms == {
        "class_net.predict.weight": TensorProto.FLOAT,
        "class_net.predict.weight.fp16": TensorProto.FLOAT16,
    }
    onnx.checker.check_model(model, full_check=True)
