"""``effdet-deploy build``: an ONNX file of ours in, a TensorRT engine out; without torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effdet_deploy.cli import console
from effdet_deploy.cli import engine_options as option
from effdet_deploy.cli import options as shared

if TYPE_CHECKING:
    from effdet_deploy.exporters.delivery import Artifact

_SUFFIXES = (".engine", ".plan")


def run(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file of effdet-export.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The engine: .engine or .plan.")],
    batch: Annotated[
        str,
        typer.Option(metavar="N|MIN..MAX|MIN,OPT,MAX", help="Batch sizes; default the model's."),
    ] = "",
    backend: option.Backend = "tensorrt",
    workspace: option.Workspace = None,
    opt_level: option.OptLevel = None,
    timing_cache: option.TimingCache = None,
    tf32: option.Tf32 = False,
    hardware_compatible: option.HardwareCompatible = "none",
    version_compatible: option.VersionCompatible = False,
    refit: option.Refit = False,
    strip_plan: option.StripPlan = False,
    dla_core: option.DlaCore = None,
    verify: Annotated[
        bool, typer.Option(help="Run the engine against the ONNX file, where there is a GPU.")
    ] = True,
    verify_images: shared.VerifyImages = None,
    json_file: shared.JsonFile = None,
) -> None:
    """Build a TensorRT engine from an ONNX file, on the machine that will run it.

    Needs neither torch nor the weights. Ctrl-C stops the builder; nothing is left behind.
    """
    from effdet_deploy.errors import UnknownNameError
    from effdet_deploy.exporters.options import parse_batch
    from effdet_deploy.exporters.tensorrt.engine import build_engine

    if output.suffix.lower() not in _SUFFIXES:
        raise UnknownNameError("engine suffix", output.suffix, _SUFFIXES)
    options = option.build_options(context.params)
    console.require_targets(json_file)
    console.require_distinct(json_file, timing_cache, *console.with_sidecars(model, output))
    console.require_distinct(timing_cache, *console.with_sidecars(model, output))
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
    _conclude(artifact, time.monotonic() - begun)


def _conclude(artifact: Artifact, seconds: float) -> None:
    from effdet_deploy.reports.verification import render

    screen = console.stdout()
    if artifact.report is not None:
        screen.print(render(artifact.report))
    for note in artifact.notes:
        screen.print(f"[!] {note}", markup=False)
    size = artifact.size / 1e6
    screen.print(f"[✓] wrote {artifact.path} ({size:.1f} MB) in {seconds:.0f} s", markup=False)
