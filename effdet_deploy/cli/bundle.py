"""``effdet-deploy bundle``: an exported model in, a folder out that another system loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option


def run(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="triton or deepstream.")],
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file or an engine.")],
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A new folder; of Triton its model repository."),
    ],
    name: Annotated[
        str | None, typer.Option(help="What the model is called there; default the file's name.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Class names, as effdet-export reads them."),
    ] = None,
    labels_by: Annotated[
        str | None, typer.Option(help="rank or id: which output an id in --labels is of.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="N", help="Of DeepStream: frames it joins at most.")
    ] = None,
    score_threshold: Annotated[
        str | None,
        typer.Option(
            metavar="N|FILE",
            help="Of DeepStream: drop what is below; default 0.3. A file has one a class, as for "
            "detect.",
        ),
    ] = None,
    single_output: Annotated[
        bool,
        typer.Option(
            "--single-output", help="Of DeepStream: [N,D,6] for the parser of DeepStream-Yolo."
        ),
    ] = False,
    json_file: option.JsonFile = None,
) -> None:
    """Make a folder that Triton or DeepStream loads, of an exported model.

    It appears whole or not at all; what does not fit the model is said before.
    """
    from effdet_deploy.bundles import BundleOptions, bundle
    from effdet_deploy.detection.thresholds import read_thresholds
    from effdet_deploy.reports.delivered import render_bundle

    console.require_results(
        {"--json": json_file}, apart_from=(*console.with_sidecars(model), labels)
    )
    asked = None if score_threshold is None else read_thresholds(score_threshold)
    options = BundleOptions(name, labels, labels_by, batch, asked, single_output)
    made = bundle(system, model, folder, options)
    console.write_json(json_file, made.to_dict())
    console.stdout().print(render_bundle(made))
