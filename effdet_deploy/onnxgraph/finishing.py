"""Finishing of every exported ONNX file: names, metadata, checks, removal of private data.

A name says where in the model a node comes from, such as ``fpn.cell.1.fnode.3.combine.add``.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import re
from collections import Counter
from importlib import metadata
from typing import TYPE_CHECKING, Any

import onnx

from effdet_deploy._version import __version__
from effdet_deploy.artifact.spec import METADATA_KEY, DetectorSpec, ExternalFile
from effdet_deploy.errors import ModelFileError
from effdet_deploy.files import sha256_file
from effdet_deploy.onnxgraph.greedy_nms import expand_greedy
from effdet_deploy.onnxgraph.pooling import write_out_pool_padding
from effdet_deploy.onnxgraph.simplify import simplify

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir
    from numpy.typing import NDArray

EXTERNAL_DATA_ABOVE = 2 * 1024**3 - 64 * 1024**2
"""If a model has more bytes than this, its weights go into a data file, because protobuf cannot
hold 2 GiB."""
_TOOLS = ("torch", "timm", "onnx", "onnxscript", "onnxsim", "numpy")
_SCOPES = "pkg.torch.onnx.name_scopes"
_WRAPPERS = re.compile(r"^(?:heads(?:\.network)?|network)(?:\.|$)")
"""The start of a module path that nodes' names leave out: these modules only wrap the network."""
_CONSTANT_ROLES = {
    (operator, index): role
    for operator in ("Conv", "Gemm")
    for index, role in ((1, "weight"), (2, "bias"))
}


def prepare_graph(graph: ir.Graph) -> None:
    """Name every node of a freshly traced graph by module path and role, in place.

    The role is the operator in lower case; if a module uses an operator several times, its nodes
    are numbered. Poolings are rewritten into a form that every runtime accepts.
    """
    write_out_pool_padding(graph)
    taken: Counter[str] = Counter()
    for node in graph:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES) or "[]")
        # The last scope is the operation, and the one before it is the module.
        path = _WRAPPERS.sub("", str(scopes[-2])) if len(scopes) > 1 else ""
        node.name = _numbered(".".join(filter(None, (path, node.op_type.lower()))), taken)


def finish_traced(
    traced: Path, spec: DetectorSpec, path: Path, example: NDArray[Any]
) -> tuple[DetectorSpec, tuple[str, ...]]:
    """Complete, simplify and write a traced graph whose nodes are named.

    Args:
        traced: the traced file; its directory is the caller's own and keeps intermediate files.
        spec: the spec of the model.
        path: the finished file to write, in the directory of ``traced``.
        example: an input on which the simplified graph is compared with the traced one.

    Returns:
        The spec as written, and notes for the user.
    """
    if spec.output.nms == "static" and spec.output.nms_form == "greedy":
        model = onnx.load(traced)
        expand_greedy(model, unroll=spec.precision.target == "tensorrt")
        onnx.save(model, traced)
    simplified = path.with_name("simplified.scratch")
    note = simplify(traced, simplified, example)
    model = onnx.load(simplified)
    finish_graph(model)
    return write_onnx(model, spec, path), (note,) if note else ()


def finish_graph(model: onnx.ModelProto) -> None:
    """Name values, and remove everything that is private or differs between runs, in place.

    Tracers leave source paths and stack traces in metadata. Shapes of intermediate values are
    removed too, since every runtime derives them again.
    """
    name_values(model.graph)
    model.graph.name = "effdet"
    model.producer_name, model.producer_version = "effdet-deploy", __version__
    model.doc_string = model.graph.doc_string = ""
    del model.graph.value_info[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]


def name_values(graph: onnx.GraphProto) -> None:
    """Give every node's first output the node's name, in place; graph outputs keep their names.

    Nodes that a simplifier added are named after their operator, such as ``graph.add``. Further
    outputs of a node are numbered. Constants are named after their first use, so that no name of
    the tracer is left.
    """
    fixed = {value.name for value in (*graph.input, *graph.output)}
    taken = Counter(node.name for node in graph.node if node.name)
    renamed: dict[str, str] = {}
    for node in graph.node:
        if not node.name:
            node.name = _numbered(f"graph.{node.op_type.lower()}", taken)
        for index, value in enumerate(node.output):
            if value and value not in fixed:
                renamed[value] = node.name if index == 0 else f"{node.name}:{index}"
    constants = {tensor.name for tensor in graph.initializer} - fixed
    taken = Counter(renamed.values())
    for node in graph.node:
        for index, value in enumerate(node.input):
            if value in constants and value not in renamed:
                role = _CONSTANT_ROLES.get((node.op_type, index), f"constant_{index}")
                renamed[value] = _numbered(f"{node.name}.{role}", taken)
    _rename(graph, renamed)
    for tensor in graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)


def _rename(graph: onnx.GraphProto, renamed: dict[str, str]) -> None:
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [renamed.get(value, value) for value in values]
        # The body of a loop reads values of the surrounding graph.
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename(attribute.g, renamed)


def _numbered(name: str, taken: Counter[str]) -> str:
    taken[name] += 1
    return name if taken[name] == 1 else f"{name}_{taken[name] - 1}"


def write_onnx(model: onnx.ModelProto, spec: DetectorSpec, path: Path) -> DetectorSpec:
    """Check the graph and write it with its spec; large weights go into a separate data file.

    Returns:
        The spec as written, completed with facts about the finished graph (opset, operators), the
        versions of the tools, and the data file's name, size and hash.

    Raises:
        ModelFileError: the graph breaks ONNX's rules, by a bug of ours or of the tracer.
    """
    is_large = model.ByteSize() > EXTERNAL_DATA_ABOVE
    spec = dataclasses.replace(
        spec,
        opset=next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx")),
        operators=dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
        tools={"effdet-deploy": __version__} | {name: metadata.version(name) for name in _TOOLS},
        external_files=(_externalize(model, path),) if is_large else (),
    )
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    path.write_bytes(model.SerializeToString(deterministic=True))
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelFileError(
            f"The exported graph is not valid ONNX: {error}.", "Report this to effdet-deploy."
        ) from error
    return spec


def _externalize(model: onnx.ModelProto, path: Path) -> ExternalFile:
    """Move the weights into a file whose name has their hash, so that it replaces no other file."""
    digest = hashlib.sha256()
    for tensor in model.graph.initializer:
        digest.update(tensor.raw_data)
    name = f"{path.stem}.{digest.hexdigest()[:12]}.data"
    onnx.external_data_helper.convert_model_to_external_data(model, location=name)
    onnx.external_data_helper.write_external_data_tensors(model, str(path.parent))
    data = path.with_name(name)
    return ExternalFile(name, data.stat().st_size, sha256_file(data))
