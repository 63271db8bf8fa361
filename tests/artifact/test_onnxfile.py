"""Our own reader of ONNX files: it finds what onnx finds, and damaged bytes never crash it."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from effdet_deploy.artifact.int8weights import read_int8_weights
from effdet_deploy.artifact.onnxfile import read_onnx
from effdet_deploy.errors import ModelFileError
from effdet_deploy.onnxgraph.running import graph_inputs
from effdet_deploy.precision.int8.quantizer import Quantizer, Recipe
from effdet_deploy.synthetic import structured_pictures
from tests.onnx_models import tiny_model, write_tiny
from tests.precision.tiny_network import SIDE as NETWORK_SIDE
from tests.precision.tiny_network import network_spec, tiny_network


def test_it_finds_what_onnx_finds(tmp_path):
    model = tiny_model()
    said = read_onnx(write_tiny(tmp_path / "tiny.onnx"))
    assert said.ir_version == model.ir_version
    assert said.opsets == {"": 18}
    assert said.metadata == {each.key: each.value for each in model.metadata_props}
    assert sum(said.operators.values()) == len(model.graph.node)
    assert said.operators["Unsqueeze"] == 2
    assert said.external == ()


def nested_model() -> onnx.ModelProto:
    """An ONNX If; its branches hold a constant in an external file and an unknown operator."""

    def branch(name: str, node: onnx.NodeProto) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2])
        return helper.make_graph([node], name, [], [value])

    outside = numpy_helper.from_array(np.zeros(2, np.float32), "w")
    onnx.external_data_helper.set_external_data(outside, "weights.bin", 0, 8)
    outside.ClearField("raw_data")
    then = branch("a", helper.make_node("Constant", [], ["a"], value=outside))
    other = branch("b", helper.make_node("Thing", [], ["b"], domain="com.acme"))
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])],
    )
    opsets = [helper.make_opsetid("ai.onnx", 18), helper.make_opsetid("com.acme", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def test_it_finds_operators_and_external_files_inside_branches(tmp_path):
    (tmp_path / "nested.onnx").write_bytes(nested_model().SerializeToString())
    said = read_onnx(tmp_path / "nested.onnx")
    assert said.operators == {"Constant": 1, "If": 1, "com.acme::Thing": 1}
    assert said.opsets == {"": 18, "com.acme": 3}
    assert said.external == ("weights.bin",)


def test_a_model_cut_off_anywhere_is_refused(tmp_path):
    whole = tiny_model().SerializeToString()
    path = tmp_path / "cut.onnx"
    for share in np.linspace(0.01, 0.99, 60):
        path.write_bytes(whole[: int(len(whole) * share)])
        try:
            said = read_onnx(path)
        except ModelFileError:
            continue
        # A cut between two fields leaves a valid message that lacks the later fields.
        assert said.metadata == {} or said.opsets == {}


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_are_read_or_refused_but_never_crash(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    with contextlib.suppress(ModelFileError):
        assert read_onnx(path).ir_version > 0


def test_graphs_nested_beyond_protobufs_limit_are_refused(tmp_path):
    def field(number: int, payload: bytes) -> bytes:
        length, encoded = len(payload), b""
        while True:
            length, low = length >> 7, length & 0x7F
            encoded += bytes([low | 0x80 if length else low])
            if not length:
                return bytes([number << 3 | 2]) + encoded + payload

    graph = b""
    for _ in range(300):
        graph = field(1, field(5, field(6, graph)))
    (tmp_path / "deep.onnx").write_bytes(b"\x08\x0a" + field(7, graph))
    with pytest.raises(ModelFileError, match="nested"):
        read_onnx(tmp_path / "deep.onnx")


def test_int8_weights_are_those_that_onnx_reads(tmp_path):
    network = tiny_network(table=True)
    pictures = structured_pictures(2, NETWORK_SIDE, NETWORK_SIDE, 5)
    batches = list(graph_inputs(pictures, network_spec()))
    quantizer = Quantizer(network, batches, "openvino", Recipe(), tmp_path)
    names = [each.name for each in quantizer.convolutions]
    onnx.save(quantizer.quantized(names), tmp_path / "int8.onnx")
    model = onnx.load(tmp_path / "int8.onnx")
    tensors = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    found = read_int8_weights(tmp_path / "int8.onnx")
    assert sorted(found) == sorted(names)
    for each in quantizer.convolutions:
        stored = tensors[f"{each.weight}.int8"]
        kernel = stored.T if each.kind == "product" else stored
        np.testing.assert_array_equal(found[each.name], kernel.reshape(*kernel.shape[:2], -1))


def test_a_file_of_floats_has_no_int8_weights(tmp_path):
    assert read_int8_weights(write_tiny(tmp_path / "tiny.onnx")) == {}
