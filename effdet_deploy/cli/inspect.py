"""``effdet-deploy inspect``: what an exported model says about itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option

if TYPE_CHECKING:
    from effdet_deploy.artifact.modelfile import Content
    from effdet_deploy.artifact.spec import DetectorSpec

_SHOWN_CLASSES = 8


def run(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An exported model.")],
    json_file: option.JsonFile = None,
) -> None:
    """Show what an exported model says about itself: spec, tensors, operators, size and hash."""
    console.require_targets(json_file)
    console.require_distinct(json_file, *console.with_sidecars(model))
    document = describe(model)
    console.write_json(json_file, document)
    _show(document)


def describe(model: Path) -> dict[str, Any]:
    """Collect what ``model`` says about itself, without loading it into an engine.

    Raises:
        ModelFileError: unreadable or no exported model.
    """
    from effdet_deploy.artifact.modelfile import recognise
    from effdet_deploy.files import sha256_file

    content = recognise(model)
    return {
        "file": str(model),
        "content": content,
        "size": model.stat().st_size,
        "sha256": sha256_file(model),
        **_structure(model, content),
        **_spec_and_tensors(model, content),
        **_sidecar(model),
    }


def _structure(model: Path, content: Content) -> dict[str, Any]:
    if content != "onnx":
        return {}
    from effdet_deploy.artifact.onnxfile import read_onnx

    said = read_onnx(model)
    return {
        "ir_version": said.ir_version,
        "opsets": said.opsets,
        "operators": said.operators,
        "external_files": list(said.external),
    }


def _spec_and_tensors(model: Path, content: Content) -> dict[str, Any]:
    from effdet_deploy.artifact.modelfile import read_spec
    from effdet_deploy.artifact.tensors import spec_tensors
    from effdet_deploy.errors import ModelFileError

    try:
        spec = read_spec(model, content)
    except ModelFileError as error:
        return {"spec": None, "note": str(error)}
    inputs, outputs = spec_tensors(spec)
    return {
        "inputs": [str(each) for each in inputs],
        "outputs": [str(each) for each in outputs],
        "spec": json.loads(spec.to_json()),
    }


def _sidecar(model: Path) -> dict[str, Any]:
    from effdet_deploy.artifact.modelfile import read_sidecar

    sidecar = read_sidecar(model)
    if sidecar is None:
        return {"sidecar": None}
    return {"sidecar": {"sha256": sidecar.sha256, "verification": sidecar.verification}}


def _show(document: dict[str, Any]) -> None:
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(document):
        table.add_row(name, Text(value))
    console.stdout().print(table)
    if document.get("note"):
        console.note(document["note"])


def _rows(document: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("file", f"{document['file']} ({document['content']}, {document['size'] / 1e6:.2f} MB)"),
        ("sha256", document["sha256"]),
        ("sidecar", _sidecar_text(document)),
    ]
    if document["spec"] is not None:
        rows += _spec_rows(document)
    if "operators" in document:
        opsets = ", ".join(
            f"{name or 'onnx'} {number}" for name, number in document["opsets"].items()
        )
        counts = sorted(document["operators"].items(), key=lambda item: (-item[1], item[0]))
        total = sum(document["operators"].values())
        listed = ", ".join(f"{count} {name}" for name, count in counts)
        rows += [
            ("format", f"IR {document['ir_version']}, opset {opsets}"),
            ("operators", f"{total}: {listed}"),
        ]
        if document["external_files"]:
            rows.append(("external files", ", ".join(document["external_files"])))
    return rows


def _sidecar_text(document: dict[str, Any]) -> str:
    if document["sidecar"] is None:
        return "none"
    same = document["sidecar"]["sha256"] == document["sha256"]
    verification = document["sidecar"]["verification"]
    verdict = verification.get("status", "recorded") if verification else "none"
    return f"{'hash agrees' if same else 'HASH DIFFERS'}; verification: {verdict}"


def _spec_rows(document: dict[str, Any]) -> list[tuple[str, str]]:
    from effdet_deploy.artifact.spec import DetectorSpec

    spec = DetectorSpec.from_dict(document["spec"])
    rows = [
        ("variant", spec.variant + (f" with {_pairs(spec.overrides)}" if spec.overrides else "")),
        ("inputs", "\n".join(document["inputs"])),
        ("preprocessing", _preprocessing(spec)),
        ("outputs", "\n".join(document["outputs"])),
        ("nms", _nms(spec)),
        ("classes", _classes(spec)),
        ("precision", _precision(spec)),
        ("batch", str(spec.batch)),
        ("parameters", f"{spec.parameters / 1e6:.2f} M"),
        ("weights sha256", spec.weights_sha256),
        ("tools", _pairs(spec.tools)),
        ("command", spec.command),
    ]
    if spec.engine is not None:
        engine = spec.engine
        chip = f"{engine.gpu} {engine.compute_capability}".strip()
        built = f"{engine.backend} {engine.version}" + (f" for {chip}" if chip else "")
        rows.append(("engine", built))
    return [(name, value) for name, value in rows if value]


def _pairs(mapping: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(mapping.items()))


def _preprocessing(spec: DetectorSpec) -> str:
    kind = spec.input
    mean = ", ".join(f"{each:.3f}" for each in kind.mean)
    std = ", ".join(f"{each:.3f}" for each in kind.std)
    return (
        f"{kind.kind}, {kind.channel_order}; {kind.resize}, fill {list(kind.fill)}; "
        f"mean {mean}; std {std}"
    )


def _nms(spec: DetectorSpec) -> str:
    out = spec.output
    steps = f", {out.nms_steps} steps" if out.nms == "static" else ""
    return (
        f"{out.nms}{steps}; score ≥ {out.score_threshold}, IoU {out.iou_threshold}, "
        f"{out.candidates} candidates, {out.max_detections} rows, {out.box_format}"
    )


def _classes(spec: DetectorSpec) -> str:
    names = [each.name for each in spec.classes[:_SHOWN_CLASSES]]
    more = ", …" if spec.num_classes > _SHOWN_CLASSES else ""
    return f"{spec.num_classes}: {', '.join(names)}{more}"


def _precision(spec: DetectorSpec) -> str:
    target = f" for {spec.precision.target}" if spec.precision.target else ""
    kept = f"; kept higher: {len(spec.precision.kept)}" if spec.precision.kept else ""
    return f"{spec.precision.kind}{target}{kept}"
