"""``effdet-deploy compare``: artifacts side by side, and where they part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effdet_deploy.cli import console

if TYPE_CHECKING:
    from effdet_deploy.parity.side_by_side import Pictures

_DIFFERS = 3


def run(
    candidates: Annotated[
        list[Path], typer.Argument(metavar="CANDIDATE...", help="Exported models of any kind.")
    ],
    reference: Annotated[
        str,
        typer.Option(
            metavar="WEIGHTS|MODEL",
            help="What they are compared with: another exported model; or weights, which run in "
            "eager PyTorch: a path, a URL, pretrained or random.",
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Pictures; default four structured ones of our own."),
    ] = None,
    coco: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="COCO annotations: mAP and its difference as well."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Use only the first N pictures.")
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Compare layer by layer and name the first to differ.")
    ] = False,
    backend: Annotated[str, typer.Option(help="The engine; auto goes by the suffix.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int | None, typer.Option(metavar="N", help="CPU threads.")] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Load an engine that has no sidecar to check it by.")
    ] = False,
    html_file: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="A report with pictures, in one file."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="The result as JSON.")
    ] = None,
) -> None:
    """Compare exported models with a reference; exit 0 if they agree, 3 if not or inconclusive."""
    from effdet_deploy.files import require_writable_target, write_atomically
    from effdet_deploy.parity.document import to_dict
    from effdet_deploy.parity.report_html import to_html
    from effdet_deploy.parity.side_by_side import compare_files
    from effdet_deploy.parity.sides import Engine
    from effdet_deploy.parity.table import render_comparison

    for target in filter(None, (html_file, json_file)):
        require_writable_target(target)
    pictures = _pictures(images, coco, limit)
    engine = Engine(backend, device, threads, trust)
    with console.stages() as begin:
        result = compare_files(
            candidates, reference, pictures, engine=engine, layers=layers, progress=begin
        )
    console.stdout().print(render_comparison(result))
    if json_file is not None:
        console.write_json(json_file, to_dict(result))
    if html_file is not None:
        write_atomically(html_file, to_html(result))
    if not result.passed:
        raise typer.Exit(_DIFFERS)


def _pictures(folder: Path | None, coco: Path | None, limit: int | None) -> Pictures | None:
    from effdet_deploy.evaluation.cocoset import read_coco
    from effdet_deploy.parity.side_by_side import pictures_of, pictures_of_set

    if coco is not None:
        return pictures_of_set(read_coco(coco, folder, limit))
    return None if folder is None else pictures_of(folder, limit)
