"""Temporary copies of an ONNX file whose outputs include the raw heads: logits and box codes."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from effdet_deploy.artifact.spec import HEAD_OUTPUTS, METADATA_KEY, DetectorSpec
from effdet_deploy.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

PLUGIN_DOMAIN = "trt.plugins"
"""The domain of operators that only TensorRT has."""


@contextlib.contextmanager
def with_heads(path: Path, spec: DetectorSpec) -> Iterator[Path]:
    """Yield a temporary copy of an ONNX file of ours whose outputs include the raw heads.

    Raises:
        ModelFileError: the graph has no head nodes with the names that our exporter gives.
    """
    with beside_data(path, spec) as directory:
        copy = directory / path.name
        add_head_outputs(path, copy)
        yield copy


@contextlib.contextmanager
def beside_data(path: Path, spec: DetectorSpec) -> Iterator[Path]:
    """Yield a temporary directory with copies of the data files of ``path``.

    The data files are copied because runtimes refuse links, and to a temporary directory because
    the directory of ``path`` may be read-only.
    """
    with tempfile.TemporaryDirectory(prefix="effdet-") as name:
        directory = Path(name)
        for each in spec.external_files:
            shutil.copyfile(path.parent / each.name, directory / each.name)
        yield directory


def add_head_outputs(source: Path, target: Path) -> None:
    """Write ``source`` to ``target`` with the two head tensors as additional outputs, in float32.

    A file whose outputs are the heads is copied as it is. If the graph ends in a plugin of
    TensorRT, the copy ends in the heads, and its spec says so: only TensorRT could run the plugin.
    If ``source`` has external data, ``target`` must lie in the directory of ``source``.

    Raises:
        ModelFileError: the graph has no head nodes with the names that our exporter gives.
    """
    try:
        model = onnx.load(source, load_external_data=False)
    except DecodeError as error:
        raise ModelFileError(
            f"'{source.name}' is not an ONNX file.", "Export the model again with effdet-export."
        ) from error
    graph, kind = model.graph, onnx.TensorProto.FLOAT
    present = {output.name for output in graph.output}
    for name in (each for each in HEAD_OUTPUTS if each not in present):
        value = head_node(graph, name).output[0]
        cast = onnx.helper.make_node("Cast", [value], [name], f"{name}.cast_output", to=kind)
        graph.node.append(cast)
        graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    if any(node.domain == PLUGIN_DOMAIN for node in graph.node):
        _end_before_plugin(model)
    target.write_bytes(model.SerializeToString())


def head_node(graph: onnx.GraphProto, head: str) -> onnx.NodeProto:
    """Return the node that makes ``head``, one of :data:`HEAD_OUTPUTS`, whatever its precision.

    Raises:
        ModelFileError: no node makes this head.
    """
    found = next((node for node in graph.node if node.name == f"{head}.reshape"), None)
    if found is None:
        raise ModelFileError(
            f"The graph has no node '{head}.reshape', which makes the raw head.",
            "Use a file that effdet-deploy exported.",
        )
    return found


def _end_before_plugin(model: onnx.ModelProto) -> None:
    """Remove the plugin, the nodes that depend on it, and constants without readers, in place."""
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
            entry.value = DetectorSpec.from_json(entry.value).of_heads.to_json()
