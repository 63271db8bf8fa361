"""``effdet-deploy bundle``: write an exported model as a folder that another system loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option

System = Annotated[
    str,
    typer.Argument(
        metavar="SYSTEM", help="The system that will load the folder: triton or deepstream."
    ),
]
Folder = Annotated[
    Path,
    typer.Argument(
        metavar="DIR", help="The folder to make; for Triton this is its model repository."
    ),
]
Name = Annotated[
    str | None,
    typer.Option(help="Name of the model in that system; default: the file's name."),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="File with the class names, in any form that effdet-export reads."
    ),
]
LabelsBy = Annotated[
    str | None,
    typer.Option(
        help="How the ids in --labels number the outputs: rank (the smallest id is output 0) "
        "or id (id 1 is output 0)."
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="For DeepStream: most frames in a batch; default: the model's largest batch.",
    ),
]
ScoreThreshold = Annotated[
    str | None,
    typer.Option(
        metavar="N|FILE",
        help="For DeepStream: leave out detections with a lower score; default 0.3. A JSON or "
        "YAML FILE gives one threshold per class, as for detect.",
    ),
]
SingleOutput = Annotated[
    bool,
    typer.Option(
        "--single-output",
        help="For DeepStream: give one output [N,D,6], which the parser of DeepStream-Yolo reads.",
    ),
]


def run(
    system: System,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file or an engine.")],
    folder: Folder,
    name: Name = None,
    labels: Labels = None,
    labels_by: LabelsBy = None,
    batch: Batch = None,
    score_threshold: ScoreThreshold = None,
    single_output: SingleOutput = False,
    json_file: option.JsonFile = None,
) -> None:
    """Put an exported model into a folder that Triton or DeepStream loads.

    Options that do not fit the model are refused first; the folder appears whole or not at all.
    """
    from effdet_deploy.bundles import BundleOptions, bundle
    from effdet_deploy.detection.thresholds import read_thresholds
    from effdet_deploy.reports.delivered import render_bundle

    console.require_results(
        {"--json": json_file}, apart_from=(*console.with_sidecars(model), labels)
    )
    asked = read_thresholds(score_threshold)
    options = BundleOptions(name, labels, labels_by, batch, asked, single_output)
    made = bundle(system, model, folder, options)
    console.write_json(json_file, made.to_dict())
    console.stdout().print(render_bundle(made))
