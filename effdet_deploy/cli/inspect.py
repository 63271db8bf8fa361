"""``effdet-deploy inspect``: show what an exported model says about itself."""

from __future__ import annotations

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option


def run(model: option.Model, json_file: option.JsonFile = None) -> None:
    """Show what an exported model says about itself: spec, tensors, operators, size and hash."""
    from effdet_deploy.artifact.description import describe
    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.reports.inspected import render_description
    from effdet_deploy.runtimes.instructions import describe_int8

    console.require_results({"--json": json_file}, apart_from=console.with_sidecars(model))
    document = describe(model)
    if document["content"] == "onnx" and document["spec"] is not None:
        precision = DetectorSpec.from_dict(document["spec"]).precision
        if precision.kind == "int8":
            document["int8"] = describe_int8(model, precision)
    console.write_json(json_file, document)
    console.stdout().print(render_description(document))
    if document.get("note"):
        console.note(document["note"])
