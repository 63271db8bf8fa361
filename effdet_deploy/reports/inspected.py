"""The report of ``inspect``: what a model file says about itself, as names and values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from effdet_deploy.artifact.spec import DetectorSpec
from effdet_deploy.reports.text import pairs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

_SHOWN_CLASSES = 8


def render_description(document: Mapping[str, Any]) -> RenderableType:
    """Render the document of :func:`effdet_deploy.artifact.description.describe`."""
    said, verdict = document["sidecar"], "none"
    if said is not None:
        hashes = "hash agrees" if said["sha256"] == document["sha256"] else "HASH DIFFERS"
        status = (said["verification"] or {"status": "none"}).get("status", "recorded")
        verdict = f"{hashes}; verification: {status}"
    rows = {
        "file": f"{document['file']} ({document['content']}, {document['size'] / 1e6:.2f} MB)",
        "sha256": document["sha256"],
        "sidecar": verdict,
    }
    if document["spec"] is not None:
        spec = DetectorSpec.from_dict(document["spec"])
        told = _spec_rows(spec, document["inputs"], document["outputs"])
        rows |= {name: value for name, value in told.items() if value}
    if "int8" in document:
        rows["INT8"] = _int8(document["int8"])
    if "operators" in document:
        opsets = {name or "onnx": number for name, number in document["opsets"].items()}
        counts = sorted(document["operators"].items(), key=lambda item: (-item[1], item[0]))
        listed = ", ".join(f"{count} {name}" for name, count in counts)
        rows["format"] = f"IR {document['ir_version']}, opset {_listed(opsets)}"
        rows["operators"] = f"{sum(document['operators'].values())}: {listed}"
        if document["external_files"]:
            rows["external files"] = ", ".join(document["external_files"])
    return pairs(list(rows.items()))


def _int8(said: Mapping[str, Any]) -> str:
    layers = said["saturating_layers"]
    if not layers:
        return "right on every processor: no sum of two products exceeds 16 bits"
    right = "right" if said["right_here"] else "WRONG"
    return (
        f"needs VNNI in {said['engine']}: without VNNI {len(layers)} layers can saturate, such as "
        f"{layers[0]}; results are {right} on this processor, which has {said['here']}"
    )


def _spec_rows(spec: DetectorSpec, inputs: list[str], outputs: list[str]) -> dict[str, str]:
    takes, gives, precision, engine = spec.input, spec.output, spec.precision, spec.engine
    mean, std = (", ".join(f"{each:.3f}" for each in values) for values in (takes.mean, takes.std))
    in_steps = "row by row" if gives.nms_form == "greedy" else f"{gives.nms_steps} steps"
    steps = f", {in_steps}" if gives.nms == "static" else ""
    steps += ", soft" if gives.soft_nms else ""
    steps += ", all classes together" if gives.class_agnostic else ""
    names = ", ".join(each.name for each in spec.classes[:_SHOWN_CLASSES])
    more = ", …" if spec.num_classes > _SHOWN_CLASSES else ""
    target = f" for {precision.target}" if precision.target else ""
    target += f", {precision.int8_range} range" if precision.int8_range else ""
    kept = f"; {len(precision.kept)} layers kept in higher precision" if precision.kept else ""
    frames = "x".join(map(str, takes.frame_size or takes.source_size or ()))
    whose = "from DeepStream's frames" if takes.frame_size else "in the graph, from frames"
    framed = f", {whose} of {frames}" if frames else ""
    chip = f"{engine.gpu} {engine.compute_capability}".strip() if engine else ""
    return {
        "variant": spec.variant + (f" with {_listed(spec.overrides)}" if spec.overrides else ""),
        "inputs": "\n".join(inputs),
        "preprocessing": (
            f"{takes.kind}, {takes.channel_order}; {takes.resize}{framed}, {takes.interpolation}, "
            f"fill {list(takes.fill)}; mean {mean}; std {std}; trained on {takes.trained_on}"
        ),
        "outputs": "\n".join(outputs),
        "nms": (
            f"{gives.nms}{steps}; score ≥ {gives.score_threshold}, IoU {gives.iou_threshold}, "
            f"{gives.candidates} candidates, {gives.max_detections} rows, {gives.box_format}"
        ),
        "classes": f"{spec.num_classes}: {names}{more}",
        "precision": f"{precision.kind}{target}{kept}",
        "batch": str(spec.batch),
        "parameters": f"{spec.parameters / 1e6:.2f} M",
        "weights sha256": spec.weights_sha256,
        "tools": _listed(spec.tools),
        "command": spec.command,
        "engine": (
            f"{engine.backend} {engine.version}" + (f" for {chip}" if chip else "")
            if engine
            else ""
        ),
    }


def _listed(mapping: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(mapping.items()))
