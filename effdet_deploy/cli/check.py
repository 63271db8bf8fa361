"""``effdet-deploy check``: will TensorRT accept this ONNX file and compute what it says?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option


def run(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model to check.")],
    target: Annotated[
        str,
        typer.Option(
            "--target", help="The TensorRT to check for: tensorrt-10, tensorrt-11 or tensorrt-rtx."
        ),
    ],
    json_file: option.JsonFile = None,
) -> None:
    """Check whether TensorRT accepts an ONNX model; needs neither TensorRT nor a GPU.

    The exit code is 0 if the check finds no problem, and 5 otherwise.
    """
    from effdet_deploy.errors import ModelFileError
    from effdet_deploy.preflight import check_model
    from effdet_deploy.reports.listings import render_findings

    console.require_results({"--json": json_file}, apart_from=console.with_sidecars(model))
    findings = check_model(model, target)
    document = {
        "file": model.name,
        "target": target,
        "findings": [dataclasses.asdict(each) for each in findings],
    }
    console.write_json(json_file, document)
    if findings:
        console.stdout().print(render_findings(findings))
        raise typer.Exit(ModelFileError.exit_code)
    console.stdout().print(
        f"{model}: {target} accepts this model and changes nothing.", markup=False
    )
