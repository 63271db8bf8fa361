"""``effdet-deploy export`` and ``effdet-export``: turn a checkpoint into a verified model."""

from __future__ import annotations

import shlex
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option
from effdet_deploy.errors import UsageError
from effdet_deploy.exporters.build_options import BuildOptions
from effdet_deploy.exporters.option_text import (
    parse_batch,
    parse_candidates,
    parse_channels,
    parse_image_size,
)
from effdet_deploy.exporters.options import PRECISIONS, ExportOptions
from effdet_deploy.files import base_name, read_json_object

if TYPE_CHECKING:
    from collections.abc import Mapping

_FILES_READ = (
    *("config", "labels", "calibration", "verify_images", "eval_data", "eval_images"),
    *("class_map", "precision_file", "timing_cache"),
)
"""Options that name a file or folder which an export reads, apart from --weights."""
_NOT_STORED = ("keep_onnx", "json_file")
_OPTION_NAMES = {"input_kind": "input", "precision_file": "precision"}


@option.taking(option.EXPORT, batch=str(ExportOptions().batch), candidates="auto")
def run(
    context: typer.Context,
    output: Annotated[
        Path,
        typer.Argument(metavar="OUTPUT", help="The file to write: .onnx, .torchscript or .engine."),
    ],
    **given: Any,
) -> None:
    """Turn a checkpoint into one verified graph: uint8 image in, boxes out.

    The suffix of OUTPUT decides what is made. The export ends by running the artifact and
    comparing it with eager PyTorch; an artifact that differs is kept as OUTPUT.failed.
    """
    from effdet_deploy.exporters import export
    from effdet_deploy.exporters.delivery import precision_file_path
    from effdet_deploy.reports.delivered import render_export

    variant, weights, json_file = given["variant"], given["weights"], given["json_file"]
    # This check comes before torch is imported, which takes seconds.
    if variant is None and weights in ("pretrained", "random"):
        raise UsageError(
            f"--weights {weights} needs a --variant.",
            "Pass --variant d0, or a checkpoint that records its variant.",
        )
    read = [Path(weights), *map(given.get, _FILES_READ)]
    made = console.with_sidecars(output, given["keep_onnx"])
    console.require_results(
        {"--json": json_file}, apart_from=(*made, precision_file_path(output), *read)
    )
    console.require_distinct("--keep-onnx", given["keep_onnx"], output, *read)
    console.require_distinct("--timing-cache", given["timing_cache"], *made, Path(weights))
    # The stored command keeps the order in which the user gave the options.
    options = export_options({name: given[name] for name in context.params if name in given})
    begun = time.monotonic()
    with console.stages() as stage:
        artifact = export(variant, output, options, stage)
    console.write_json(json_file, artifact.to_dict())
    console.stdout().print(render_export(artifact, time.monotonic() - begun))


def export_options(given: Mapping[str, Any]) -> ExportOptions:
    """Turn the command's parameters into validated options; raises UsageError."""
    precisions = [name for name in PRECISIONS if given[name]]
    if len(precisions) > 1:
        raise UsageError(
            f"{' and '.join(f'--{name}' for name in precisions)} contradict each other.",
            "Choose one.",
        )
    overrides = {}
    if given["config"] is not None:
        remedy = 'It holds a JSON object such as {"fpn_channels": 88}.'
        overrides = read_json_object(given["config"], "The config file", remedy)
    options = {each.name: given[each.name] for each in fields(ExportOptions) if each.name in given}
    options["image_size"] = parse_image_size(size) if (size := given["image_size"]) else None
    for name in ("frame_size", "source_size"):
        word, size = f"--{name.replace('_', '-')}", given[name]
        options[name] = parse_image_size(size, word) if size else None
    options["overrides"] = overrides
    for name, kind in (("mean", float), ("std", float), ("fill", int)):
        text = given[name]
        options[name] = None if text is None else parse_channels(f"--{name}", text, kind)
    options["candidates"] = parse_candidates(given["candidates"])
    options["batch"] = parse_batch(given["batch"])
    options["precision"] = precisions[0] if precisions else "fp32"
    options["build"] = option.build_options(given)
    return ExportOptions(**options, command=stored_command(given))


def stored_command(given: Mapping[str, Any]) -> str:
    """Return the command to store in the artifact: base names only, without OUTPUT."""
    words = ["effdet-export"]
    defaults = vars(BuildOptions())
    for name, value in given.items():
        is_left_out = value is None or value is False or value == ""
        is_default = name in defaults and value == defaults[name]
        says_nothing = name == "int8_range" and not given["int8"]
        if name in _NOT_STORED or is_left_out or is_default or says_nothing:
            continue
        word = f"--{_OPTION_NAMES.get(name, name).replace('_', '-')}"
        if value is True:
            words += [] if name == "verify" else [word]
        elif isinstance(value, Path):
            words += [word, value.name]
        else:
            # Only the end of a URL is stored: the rest may hold a key.
            words += [word, base_name(str(value)) if name == "weights" else str(value)]
    said = shlex.join([*words, *(() if given["verify"] else ("--no-verify",))])
    # A file name may be in another encoding than UTF-8.
    return said.encode("utf-8", "backslashreplace").decode()
