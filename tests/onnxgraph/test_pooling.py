"""Explicit padding in place of ``ceil_mode`` keeps a pooling's result, and TensorRT takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

from effdet_deploy.onnxgraph.pooling import write_out_pool_padding
from tests.precision.rtx import Build

if TYPE_CHECKING:
    from collections.abc import Iterable

SIDES = (2, 3, 4, 5, 7, 8, 13, 16)
POOLS = {
    # Among them are the poolings of the pyramid (SAME padding), of ResNet and of ResNet-D.
    "odd": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "even": ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "unpadded": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2]}),
    "dilated": ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "dilations": [2, 2]}),
    "average": ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
}


def pooled(kind: str, sides: Iterable[tuple[int, int]], **attributes: object) -> onnx.ModelProto:
    """Return a graph with one pooling per (height, width), all with ``ceil_mode``."""
    operator, settings = POOLS[kind]
    names = [f"{height}x{width}" for height, width in sides]
    nodes = [
        helper.make_node(
            operator, [f"in{name}"], [f"out{name}"], name, ceil_mode=1, **settings, **attributes
        )
        for name in names
    ]
    inputs = [
        helper.make_tensor_value_info(f"in{name}", TensorProto.FLOAT, ["batch", 3, *side])
        for name, side in zip(names, sides, strict=True)
    ]
    outputs = [
        helper.make_tensor_value_info(f"out{each}", TensorProto.FLOAT, None) for each in names
    ]
    graph = helper.make_graph(nodes, "pools", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def rewritten(model: onnx.ModelProto) -> onnx.ModelProto:
    held = ir.from_proto(model)
    write_out_pool_padding(held.graph)
    return ir.to_proto(held)


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    feeds = {
        each.name: generator.normal(
            -1, 1, [2, *(dim.dim_value for dim in each.type.tensor_type.shape.dim[1:])]
        ).astype(np.float32)
        for each in model.graph.input
    }
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


@pytest.mark.parametrize("kind", POOLS)
def test_every_size_gives_the_same_bits_without_ceil_mode(kind):
    sides = [(height, width) for height in SIDES for width in SIDES]
    if kind in ("unpadded", "dilated"):
        sides = [side for side in sides if min(side) > 2]
    model = pooled(kind, sides)
    after = rewritten(model)
    assert all("ceil_mode" not in attributes(node) for node in after.graph.node)
    for old, new in zip(run(model), run(after), strict=True):
        assert np.array_equal(old, new)


def test_nvidia_builds_every_size():
    sides = [(height, width) for height in SIDES[1:] for width in SIDES[1:]]
    after = rewritten(pooled("unpadded", sides))
    for each in after.graph.input:
        each.type.tensor_type.shape.dim[0].dim_value = 2
    build = Build(after.SerializeToString())
    assert build.errors == []
    assert build.engine is not None


def test_an_average_that_counts_its_padding_is_left_as_it_is():
    model = pooled("average", [(5, 5)], count_include_pad=1)
    assert attributes(rewritten(model).graph.node[0]) == attributes(model.graph.node[0])


def test_a_pooling_of_unknown_size_is_left_as_it_is():
    model = pooled("even", [(5, 5)])
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    assert attributes(rewritten(model).graph.node[0]) == attributes(model.graph.node[0])
