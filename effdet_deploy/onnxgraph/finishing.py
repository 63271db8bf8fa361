"""What every ONNX file gets before it leaves: names, metadata, checks; and nothing private."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from importlib import metadata
from typing import TYPE_CHECKING

import onnx

from effdet_deploy._version import __version__
from effdet_deploy.artifact.spec import METADATA_KEY, DetectorSpec, ExternalFile
from effdet_deploy.errors import ModelFileError
from effdet_deploy.files import sha256_file
from effdet_deploy.onnxgraph.names import name_values

if TYPE_CHECKING:
    from pathlib import Path

EXTERNAL_DATA_ABOVE = 2 * 1024**3 - 64 * 1024**2
"""Bytes of weights above which they go into a data file: protobuf cannot hold 2 GiB."""
_TOOLS = ("torch", "timm", "onnx", "onnxscript", "onnxsim", "numpy")


def finish_graph(model: onnx.ModelProto) -> None:
    """Name values, and strip what is private or differs between runs, in place.

    Tracers leave source paths and stack traces in metadata; shapes of intermediate values are
    derived again by every runtime.
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


def complete_spec(spec: DetectorSpec, model: onnx.ModelProto) -> DetectorSpec:
    """Add what only the finished graph can tell: opset and operators; and the tools' versions."""
    return dataclasses.replace(
        spec,
        opset=next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx")),
        operators=dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
        tools={"effdet-deploy": __version__} | {name: metadata.version(name) for name in _TOOLS},
    )


def write_onnx(model: onnx.ModelProto, spec: DetectorSpec, path: Path) -> DetectorSpec:
    """Check the graph and write it with its spec; large weights go into a data file beside it.

    Returns:
        The spec as written, with the data file's name, size and hash.

    Raises:
        ModelFileError: the graph breaks ONNX's rules: a bug of ours or of the tracer.
    """
    spec = dataclasses.replace(complete_spec(spec, model), external_files=())
    if model.ByteSize() > EXTERNAL_DATA_ABOVE:
        spec = dataclasses.replace(spec, external_files=(_externalise(model, path),))
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    path.write_bytes(model.SerializeToString(deterministic=True))
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelFileError(
            f"The exported graph is not valid ONNX: {error}.", "Report this to effdet-deploy."
        ) from error
    return spec


def _externalise(model: onnx.ModelProto, path: Path) -> ExternalFile:
    """Move the weights into one file, named by content so that it never replaces another's."""
    digest = hashlib.sha256()
    for tensor in model.graph.initializer:
        digest.update(tensor.raw_data)
    name = f"{path.stem}.{digest.hexdigest()[:12]}.data"
    onnx.external_data_helper.convert_model_to_external_data(model, location=name)
    onnx.external_data_helper.write_external_data_tensors(model, str(path.parent))
    data = path.with_name(name)
    return ExternalFile(name, data.stat().st_size, sha256_file(data))
