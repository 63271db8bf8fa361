"""``effdet-deploy build``: an ONNX file of ours in, a TensorRT engine out; without torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option
from effdet_deploy.exporters.build_options import BuildOptions

BUILD = BuildOptions()
_SUFFIXES = (".engine", ".plan")


def run(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file of effdet-export.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The engine: .engine or .plan.")],
    batch: Annotated[
        str,
        typer.Option(metavar="N|MIN..MAX|MIN,OPT,MAX", help="Batch sizes; default the model's."),
    ] = "",
    backend: option.Builder = BUILD.backend,
    workspace: option.Workspace = BUILD.workspace,
    opt_level: option.OptLevel = BUILD.opt_level,
    timing_cache: option.TimingCache = BUILD.timing_cache,
    tf32: option.Tf32 = BUILD.tf32,
    hardware_compatible: option.HardwareCompatible = BUILD.hardware_compatible,
    version_compatible: option.VersionCompatible = BUILD.version_compatible,
    refit: option.Refit = BUILD.refit,
    strip_plan: option.StripPlan = BUILD.strip_plan,
    dla_core: option.DlaCore = BUILD.dla_core,
    verify: Annotated[
        bool, typer.Option(help="Run the engine against the ONNX file, where there is a GPU.")
    ] = True,
    verify_images: option.VerifyImages = None,
    json_file: option.JsonFile = None,
) -> None:
    """Build a TensorRT engine from an ONNX file, on the machine that will run it.

    Needs neither torch nor the weights. Ctrl-C stops the builder; nothing is left behind.
    """
    from effdet_deploy.errors import UnknownNameError
    from effdet_deploy.exporters.options import parse_batch
    from effdet_deploy.exporters.tensorrt.engine import build_engine
    from effdet_deploy.reports.delivered import render_build

    if output.suffix.lower() not in _SUFFIXES:
        raise UnknownNameError("engine suffix", output.suffix, _SUFFIXES)
    options = option.build_options(context.params)
    files = console.with_sidecars(model, output)
    console.require_results(json_file, apart_from=(timing_cache, *files))
    console.require_distinct(timing_cache, *files)
    console.require_distinct(output, model)
    begun = time.monotonic()
    with console.stages() as stage:
        artifact = build_engine(
            model,
            output,
            options,
            stage,
            batch=parse_batch(batch) if batch else None,
            images=verify_images,
            verify=verify,
        )
    console.write_json(json_file, artifact.to_dict())
    console.stdout().print(render_build(artifact, time.monotonic() - begun))
