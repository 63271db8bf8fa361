"""``effdet-deploy build``: build a TensorRT engine from an exported ONNX file, without torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option

_SUFFIXES = (".engine", ".plan")


@option.taking(option.BUILD, batch=None)
def run(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="An ONNX file that effdet-export wrote.")
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="The engine to write: .engine or .plan.")
    ],
    **given: Any,
) -> None:
    """Build a TensorRT engine from an ONNX file, on the machine that will run the engine.

    It needs neither torch nor the weights. Ctrl-C stops the builder and leaves no files behind.
    """
    from effdet_deploy.errors import UnknownNameError
    from effdet_deploy.exporters.option_text import parse_batch
    from effdet_deploy.exporters.tensorrt.engine import build_engine
    from effdet_deploy.reports.delivered import render_build

    if output.suffix.lower() not in _SUFFIXES:
        raise UnknownNameError("engine suffix", output.suffix, _SUFFIXES)
    options = option.build_options(given)
    batch, timing_cache, json_file = given["batch"], given["timing_cache"], given["json_file"]
    files = console.with_sidecars(model, output)
    console.require_results({"--json": json_file}, apart_from=(timing_cache, *files))
    console.require_distinct("--timing-cache", timing_cache, *files)
    console.require_distinct("OUTPUT", output, model)
    begun = time.monotonic()
    with console.stages() as stage:
        artifact = build_engine(
            model,
            output,
            options,
            stage,
            batch=parse_batch(batch) if batch else None,
            images=given["verify_images"],
            verify=given["verify"],
        )
    console.write_json(json_file, artifact.to_dict())
    console.stdout().print(render_build(artifact, time.monotonic() - begun))
