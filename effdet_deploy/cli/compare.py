"""``effdet-deploy compare``: do exported models agree with a reference, and if not, where?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option
from effdet_deploy.errors import UsageError, VerificationError, require_package
from effdet_deploy.files import write_atomically

Candidates = Annotated[
    list[Path],
    typer.Argument(metavar="CANDIDATE...", help="The exported models to check, of any kind."),
]
Reference = Annotated[
    str,
    typer.Option(
        metavar="WEIGHTS|MODEL",
        help="What the candidates are compared with: another exported model, or weights that run "
        "in eager PyTorch (a path, a URL, pretrained or random).",
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder of pictures to compare on; default: those of --coco, or four generated ones.",
    ),
]
Coco = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|DIR",
        help="COCO annotations, YOLO's data.yaml or a Pascal VOC folder: measure mAP and the "
        "difference in mAP as well.",
    ),
]
Layers = Annotated[
    bool,
    typer.Option("--layers", help="Compare layer by layer and name the first layer that differs."),
]
Bisect = Annotated[
    str | None,
    typer.Option(
        metavar="fp16|int8",
        help="Find the smallest set of layers that causes the loss at this precision; --reference "
        "must be the FP32 ONNX file that the candidate was made from.",
    ),
]
HtmlFile = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write a report with pictures to one HTML file."),
]


def run(
    candidates: Candidates,
    reference: Reference,
    images: Images = None,
    coco: Coco = None,
    limit: option.Limit = None,
    class_map: option.ClassMap = None,
    layers: Layers = False,
    bisect: Bisect = None,
    backend: option.Backend = "auto",
    device: option.Device = "auto",
    threads: option.Threads = None,
    trust: option.Trust = False,
    allow_saturation: option.AllowSaturation = False,
    html_file: HtmlFile = None,
    json_file: option.JsonFile = None,
) -> None:
    """Compare exported models with a reference.

    The exit code is 0 if all of them agree, and 3 if one differs or too little could be compared.
    """
    from effdet_deploy.diagnosis.bisecting import parse_kind
    from effdet_deploy.diagnosis.comparing_files import compare_files
    from effdet_deploy.diagnosis.open_reference import HowToRun
    from effdet_deploy.evaluation.sets import read_pictures, read_set
    from effdet_deploy.reports.comparison import render_comparison

    candidates = list(dict.fromkeys(candidates))
    read = (coco, class_map, images, *console.with_sidecars(*candidates, Path(reference)))
    console.require_results({"--html": html_file, "--json": json_file}, apart_from=read)
    if html_file is not None:
        for package in ("jinja2", "matplotlib"):
            require_package(package, "an HTML report", "report")
    kind = None if bisect is None else parse_kind(bisect)
    if class_map is not None and coco is None:
        raise UsageError("--class-map only works together with --coco.", "Pass both.")
    if limit is not None and coco is None and images is None:
        raise UsageError("--limit needs pictures to choose from.", "Pass --images or --coco.")
    dataset = None if coco is None else read_set(coco, images, limit, class_map)
    pictures = None if dataset or images is None else read_pictures(images, limit)
    how = HowToRun(backend, device, threads, trust, allow_saturation)
    with console.stages() as begin:
        result = compare_files(
            candidates,
            reference,
            pictures,
            dataset,
            how=how,
            layers=layers,
            bisect=kind,
            progress=begin,
        )
    console.write_json(json_file, result.to_dict())
    if html_file is not None:
        from effdet_deploy.reports.html import to_html

        write_atomically(html_file, to_html(result))
    console.stdout().print(render_comparison(result))
    for said in result.notes:
        console.note(said)
    if not result.passed:
        raise typer.Exit(VerificationError.exit_code)
