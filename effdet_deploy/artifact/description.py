"""What a model file says about itself, read without running it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from effdet_deploy.artifact.modelfile import read_sidecar, read_spec, recognize
from effdet_deploy.artifact.onnxfile import read_onnx
from effdet_deploy.artifact.tensors import spec_tensors
from effdet_deploy.errors import ModelFileError
from effdet_deploy.files import sha256_file

if TYPE_CHECKING:
    from pathlib import Path


def describe(model: Path) -> dict[str, Any]:
    """Return what ``model`` says about itself, as a document for JSON.

    A file that another program wrote is described as far as possible, with a note.

    Raises:
        ModelFileError: the file is unreadable or is not an exported model.
    """
    content = recognize(model)
    document: dict[str, Any] = {
        "file": str(model),
        "content": content,
        "size": model.stat().st_size,
        "sha256": sha256_file(model),
    }
    if content == "onnx":
        said = read_onnx(model)
        document["ir_version"] = said.ir_version
        document["opsets"] = said.opsets
        document["operators"] = said.operators
        document["external_files"] = list(said.external)
    try:
        spec = read_spec(model, content)
    except ModelFileError as error:
        document |= {"spec": None, "note": str(error)}
    else:
        inputs, outputs = spec_tensors(spec)
        document["inputs"] = [str(each) for each in inputs]
        document["outputs"] = [str(each) for each in outputs]
        document["spec"] = json.loads(spec.to_json())
    sidecar = read_sidecar(model)
    document["sidecar"] = (
        None
        if sidecar is None
        else {"sha256": sidecar.sha256, "verification": sidecar.verification}
    )
    return document
