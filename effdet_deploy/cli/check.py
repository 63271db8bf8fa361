"""``effdet-deploy check``: will a TensorRT take this ONNX file, and compute what it says?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option

if TYPE_CHECKING:
    from effdet_deploy.preflight import Finding


def run(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX model.")],
    target: Annotated[
        str,
        typer.Option("--target", help="tensorrt-10, tensorrt-11 or tensorrt-rtx."),
    ],
    json_file: option.JsonFile = None,
) -> None:
    """Check an ONNX model against what a TensorRT takes; needs neither TensorRT nor a GPU.

    Exits with 0 when nothing was found and with 5 otherwise.
    """
    from effdet_deploy.errors import ModelFileError
    from effdet_deploy.preflight import check_model

    console.require_targets(json_file)
    console.require_distinct(json_file, *console.with_sidecars(model))
    findings = check_model(model, target)
    document = {
        "file": model.name,
        "target": target,
        "findings": [dataclasses.asdict(each) for each in findings],
    }
    console.write_json(json_file, document)
    if not findings:
        console.stdout().print(
            f"{model}: nothing that {target} would refuse or change.", markup=False
        )
        return
    _show(findings)
    raise typer.Exit(ModelFileError.exit_code)


def _show(findings: tuple[Finding, ...]) -> None:
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, pad_edge=False)
    for title in ("", "rule", "node", "what is wrong, and what to do"):
        table.add_column(title, overflow="fold")
    for each in findings:
        mark = Text("error", "bold red") if each.severity == "error" else Text("warning", "yellow")
        table.add_row(mark, each.rule, Text(each.node), Text(f"{each.cause} {each.remedy}"))
    console.stdout().print(table)
