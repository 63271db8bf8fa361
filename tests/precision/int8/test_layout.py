from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from effdet_deploy.artifact.spec import INPUT_NAME
from effdet_deploy.errors import ModelFileError
from effdet_deploy.onnxgraph.index import require_opset
from effdet_deploy.onnxgraph.running import graph_inputs, open_session
from effdet_deploy.precision.fp16 import to_half
from effdet_deploy.precision.int8.convolutions import find_convolutions, int8_share
from effdet_deploy.precision.int8.layout import LAYOUTS
from effdet_deploy.precision.int8.quantizer import Quantizer, Recipe
from effdet_deploy.synthetic import structured_pictures
from tests.precision.rtx import Build
from tests.precision.tiny_network import CHANNELS, CLASSES, SIDE, network_spec, tiny_network

BATCHES = list(graph_inputs(structured_pictures(6, SIDE, SIDE, 5), network_spec()))
# With INT8 in a few layers of random weights, the noise may have a tenth of the signal's power.
LEAST_SNR_DB = 10.0


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="module", params=list(LAYOUTS))
def target(request):
    return request.param


@pytest.fixture(scope="module")
def quantizer(target, caches):
    return Quantizer(tiny_network(), BATCHES, target, Recipe(), caches)


@pytest.fixture(scope="module")
def quantized(quantizer):
    return quantizer.quantized(quantizer.default())


def heads(model):
    session = open_session(model)
    return [session.run(None, {INPUT_NAME: batch}) for batch in BATCHES]


def snr(exact, mine) -> float:
    pairs = [pair for x, y in zip(exact, mine, strict=True) for pair in zip(x, y, strict=True)]
    noise = sum(((one - other) ** 2).sum() for one, other in pairs)
    return float(10 * np.log10(sum((one**2).sum() for one, _ in pairs) / noise))


def test_an_int8_graph_is_valid_and_near_to_fp32(quantized):
    onnx.checker.check_model(quantized, full_check=True)
    assert snr(heads(tiny_network()), heads(quantized)) > LEAST_SNR_DB


def test_the_default_keeps_stem_squeeze_excite_predict_and_pyramid_depthwise_in_float(
    target, quantizer
):
    kinds = {each.name: each.kind for each in quantizer.convolutions}
    depthwise = ["backbone.blocks.0.0.conv_dw.conv"] if target == "openvino" else []
    assert [name for name in quantizer.default() if kinds[name] != "dense"] == depthwise
    assert {name for name, kind in kinds.items() if kind == "dense"} <= set(quantizer.default())
    assert set(kinds.values()) == {"stem", "depthwise", "squeeze-excite", "predict", "dense"}


def test_each_quantized_convolution_reads_dequantized_activations_and_weights(quantizer, quantized):
    makers = {value: node for node in quantized.graph.node for value in node.output}
    for node in quantized.graph.node:
        is_int8 = node.name in quantizer.default()
        operators = [makers[value].op_type for value in node.input[:2] if value in makers]
        if node.op_type == "Conv":
            assert (operators == ["DequantizeLinear"] * 2) == is_int8, node.name


def test_weights_are_stored_as_int8_per_output_channel(quantized):
    tensors = {t.name: t for t in quantized.graph.initializer}
    name = "class_net.conv_rep.0.level.0.weight"
    assert name not in tensors
    assert tensors[f"{name}.int8"].data_type == TensorProto.INT8
    assert tensors[f"{name}.scale"].dims == [16]


def test_activations_are_int8_around_zero_for_tensorrt_and_uint8_elsewhere(target, quantized):
    name = "backbone.blocks.0.0.se.mul.zero_point"
    zero = next(tensor for tensor in quantized.graph.initializer if tensor.name == name)
    if target == "tensorrt":
        assert (zero.data_type, int(numpy_helper.to_array(zero))) == (TensorProto.INT8, 0)
    else:
        assert zero.data_type == TensorProto.UINT8


def test_a_value_that_several_convolutions_read_is_quantized_once(quantized):
    pairs = [n.input[0] for n in quantized.graph.node if n.op_type == "QuantizeLinear"]
    assert len(pairs) == len(set(pairs))


def test_node_names_of_the_fp32_graph_stay(quantized):
    names = {node.name for node in quantized.graph.node}
    assert {node.name for node in tiny_network().graph.node} <= names


def test_nvidias_builder_computes_the_chosen_convolutions_in_int8_and_the_rest_in_half(caches):
    quantizer = Quantizer(tiny_network(), BATCHES, "tensorrt", Recipe(), caches)
    model = quantizer.quantized(quantizer.default())
    to_half(model)
    onnx.checker.check_model(model, full_check=True)
    build = Build(model.SerializeToString())
    assert build.errors == []
    types = build.inputs_of_convolutions()
    assert {name for name, kind in types.items() if kind == "Int8"} == set(quantizer.default())
    assert build.correlation_types() == {"Half", "Int8"}


def test_scales_of_an_fp16_graph_lose_nothing_in_float16(caches):
    quantizer = Quantizer(tiny_network(), BATCHES, "tensorrt", Recipe(), caches)
    model = quantizer.quantized(quantizer.default())
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".scale"):
            values = numpy_helper.to_array(tensor)
            np.testing.assert_array_equal(values, values.astype(np.float16))


def test_openvino_runs_the_int8_graph_and_is_near_to_fp32(tmp_path, caches):
    pytest.importorskip("openvino")
    from effdet_deploy.runtimes import load_runtime

    quantizer = Quantizer(tiny_network(), BATCHES, "openvino", Recipe(), caches)
    path = tmp_path / "int8.onnx"
    model = quantizer.quantized(quantizer.default())
    onnx.save(model, path)
    mine = load_runtime(path, backend="openvino").run({INPUT_NAME: BATCHES[0]})
    exact = heads(tiny_network())[:1]
    assert snr(exact, [[mine["class_logits"], mine["box_regression"]]]) > LEAST_SNR_DB


def test_the_share_of_multiply_accumulates_counts_work_and_not_layers():
    convolutions = find_convolutions(tiny_network())
    assert int8_share(convolutions, [each.name for each in convolutions]) == 1.0
    stem = next(each for each in convolutions if each.kind == "stem")
    assert stem.macs == 16 * 3 * 9 * (SIDE // 4) ** 2
    share = int8_share(convolutions, [stem.name])
    assert share == pytest.approx(stem.macs / sum(each.macs for each in convolutions))


def test_an_old_opset_is_refused():
    model = tiny_network()
    model.opset_import[0].version = 18
    with pytest.raises(ModelFileError, match="opset 19 or newer, but the graph has opset 18"):
        require_opset(model, 19, "INT8")


@pytest.fixture(scope="module")
def with_table(target, caches):
    return Quantizer(tiny_network(table=True), BATCHES, target, Recipe(), caches)


def test_the_matrix_product_of_the_class_scores_is_int8_for_openvino_alone(with_table, target):
    product = next(each for each in with_table.convolutions if each.kind == "product")
    assert product.macs == sum((SIDE // side) ** 2 for side in (8, 16)) * CHANNELS * CLASSES
    assert (product.name in with_table.default()) is (target == "openvino")
    lowered = with_table.quantized([product.name, *with_table.default()])
    onnx.checker.check_model(lowered, full_check=True)
    assert snr(heads(tiny_network(table=True)), heads(lowered)) > LEAST_SNR_DB
    gemm = next(node for node in lowered.graph.node if node.op_type == "Gemm")
    assert gemm.input[1].endswith(".dequantize") is (target == "openvino")


def test_a_quantized_matrix_product_is_near_to_fp32_and_leaves_boxes_equal(caches):
    quantizer = Quantizer(tiny_network(table=True), BATCHES, "openvino", Recipe(), caches)
    (product,) = (each for each in quantizer.convolutions if each.kind == "product")
    exact, mine = heads(quantizer.model), heads(quantizer.quantized([product.name]))
    assert snr([each[:1] for each in exact], [each[:1] for each in mine]) > 30.0
    for (_, known), (_, boxes) in zip(exact, mine, strict=True):
        np.testing.assert_array_equal(boxes, known)


def test_openvino_computes_the_matrix_product_in_int8(tmp_path, caches):
    quantizer = Quantizer(tiny_network(table=True), BATCHES, "openvino", Recipe(), caches)
    path = tmp_path / "table.onnx"
    onnx.save(quantizer.quantized(quantizer.default()), path)
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    known = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kinds = {each["layerType"].astype(str): each["runtimePrecision"].astype(str) for each in known}
    assert kinds["FullyConnected"] in ("i8", "u8")
