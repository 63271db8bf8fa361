"""A copy of an ONNX file that shows its raw heads."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from effdet_deploy.artifact.spec import HEAD_OUTPUTS, METADATA_KEY, DetectorSpec
from effdet_deploy.errors import ModelFileError

if TYPE_CHECKING:
    from pathlib import Path

PLUGIN_DOMAIN = "trt.plugins"
"""Of the operators that only TensorRT has."""


def add_head_outputs(source: Path, target: Path) -> None:
    """Write ``source`` to ``target`` with the two head tensors as further outputs, in float32.

    A file whose outputs are the heads is copied as it is. A graph that ends in a plugin of TensorRT
    ends in its heads afterwards, and its spec says so: nothing else could run it. ``target`` must
    stand in the directory of ``source`` if that has external data.

    Raises:
        ModelFileError: the graph holds no nodes named as our exporter names the heads.
    """
    try:
        model = onnx.load(source, load_external_data=False)
    except DecodeError as error:
        raise ModelFileError(
            f"'{source.name}' is not an ONNX file.", "Export the model again with effdet-export."
        ) from error
    present = {output.name for output in model.graph.output}
    for name in HEAD_OUTPUTS:
        if name not in present:
            _add_output(model.graph, name)
    if any(node.domain == PLUGIN_DOMAIN for node in model.graph.node):
        _end_before_plugin(model)
    target.write_bytes(model.SerializeToString())


def head_node(graph: onnx.GraphProto, head: str) -> onnx.NodeProto:
    """Return the node that makes ``head``, one of :data:`HEAD_OUTPUTS`, whatever its precision.

    Raises:
        ModelFileError: there is none.
    """
    found = next((node for node in graph.node if node.name == f"{head}.reshape"), None)
    if found is None:
        raise ModelFileError(
            f"The graph has no node '{head}.reshape', which makes the raw head.",
            "Only files written by effdet-deploy can be compared, or given another precision.",
        )
    return found


def _add_output(graph: onnx.GraphProto, name: str) -> None:
    cast = onnx.helper.make_node(
        "Cast",
        [head_node(graph, name).output[0]],
        [name],
        f"{name}.cast_output",
        to=onnx.TensorProto.FLOAT,
    )
    graph.node.append(cast)
    graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))


def _end_before_plugin(model: onnx.ModelProto) -> None:
    """Remove the plugin and what depends on it, in place."""
    graph = model.graph
    lost: set[str] = set()
    kept = []
    for node in graph.node:
        if node.domain == PLUGIN_DOMAIN or lost.intersection(node.input):
            lost.update(node.output)
        else:
            kept.append(node)
    outputs = [each for each in graph.output if each.name not in lost]
    del graph.node[:], graph.output[:]
    graph.node.extend(kept)
    graph.output.extend(outputs)
    used = {value for node in kept for value in node.input}
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in used:
            del graph.initializer[index]
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            spec = DetectorSpec.from_json(entry.value)
            heads = dataclasses.replace(spec.output, nms="none")
            entry.value = dataclasses.replace(spec, output=heads).to_json()
