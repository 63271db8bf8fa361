"""Results that are only tables: those of ``check``, ``detect``, ``eval`` and ``doctor``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.box import SIMPLE
from rich.console import Group

from effdet_deploy.files import distinct_names
from effdet_deploy.reports.columns import Column, Table, doubts
from effdet_deploy.reports.text import grid, pairs, show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from effdet_deploy.batch.job import Statistics
    from effdet_deploy.evaluation.evaluating import Evaluated, Evaluation
    from effdet_deploy.preflight import Finding

    Document: TypeAlias = Mapping[str, Any]

_PERCENT = 100
_PORTABLE_ALONE = "computes only INT8 files with the portable range correctly"
CHECKED: tuple[Column[Finding], ...] = (
    Column("", lambda each: each.severity, "words"),
    Column("rule", lambda each: each.rule, "words"),
    Column("node", lambda each: each.node, "words"),
    Column("what is wrong, and what to do", lambda each: f"{each.cause} {each.remedy}", "words"),
)
BOXES: tuple[Column[Document], ...] = (
    Column("class", lambda each: each["name"], "words"),
    Column("score", lambda each: f"{each['score']:.3f}", "words"),
    Column(
        "box (x1, y1, x2, y2)",
        lambda each: ", ".join(f"{side:.1f}" for side in each["box"]),
        "words",
    ),
)
PICTURES: tuple[Column[Document], ...] = (
    Column("picture", lambda each: each["file"], "words"),
    Column(
        "size", lambda each: "{width}x{height}".format(**each) if "width" in each else "", "words"
    ),
    Column("found", lambda each: each.get("found") or f"error: {each['error']}", "words"),
)
VIDEOS: tuple[Column[Document], ...] = (
    Column("video", lambda each: each["file"], "words"),
    Column("size", lambda each: "{width}x{height}".format(**each), "words"),
    Column("frames", lambda each: f"{each['frames']:,} of {each['decoded']:,}"),
    Column("dropped", lambda each: f"{each['dropped']:,}"),
    Column("broken", lambda each: f"{each['broken']:,}"),
    Column("detections", lambda each: f"{each['found']:,}"),
)
SCORES: tuple[Column[tuple[str, Evaluated]], ...] = (
    Column("model", lambda row: row[0], "words"),
    Column("mAP", lambda row: f"{_PERCENT * row[1].accuracy.ap:.2f}"),
    Column("AP50", lambda row: f"{_PERCENT * row[1].accuracy.ap50:.2f}"),
    Column("AP75", lambda row: f"{_PERCENT * row[1].accuracy.ap75:.2f}"),
    Column("difference, points", lambda row: str(row[1].difference or "")),
)
INSTALLED: tuple[Column[Document], ...] = (
    Column("", lambda each: "✓" if each["ready"] else "✗", "words"),
    Column("to", lambda each: each["purpose"], "words"),
    Column(
        "installed",
        lambda each: "\n".join(f"{name} {has}" for name, has in each["packages"].items() if has),
        "words",
    ),
    Column(
        "missing",
        lambda each: "\n".join(name for name, has in each["packages"].items() if not has),
        "words",
    ),
)


def render_findings(findings: Sequence[Finding]) -> RenderableType:
    """Return the findings of ``check`` for a terminal."""
    table = Table(
        CHECKED,
        [findings],
        tone=lambda each: "failed" if each.severity == "error" else "inconclusive",
    )
    return grid(table, SIMPLE)


def render_detections(images: Sequence[Document]) -> RenderableType:
    """Return the boxes of a single picture, or one line per picture."""
    if len(images) == 1 and "error" not in images[0]:
        return grid(Table(BOXES, [images[0]["detections"]]))
    return grid(Table(PICTURES, [images]))


def render_videos(videos: Sequence[Document]) -> RenderableType:
    """Return one line per video: its frames, and how many objects were detected in them."""
    return grid(Table(VIDEOS, [videos]))


def render_evaluation(result: Evaluation, *, by_class: bool = False) -> RenderableType:
    """Return accuracies in points; ``by_class`` adds the AP of every class of every model."""
    names = distinct_names([Path(each.name) for each in result.models])
    rows = list(zip(names, result.models, strict=True))
    table = Table(SCORES, [rows], f"{result.pictures} pictures")
    total = show([table, *doubts(result.doubts)])
    if not by_class:
        return total

    def ap(model: Evaluated, category: tuple[int, str]) -> str:
        found = model.accuracy.by_category.get(category[0])
        return "" if found is None else f"{_PERCENT * found:.2f}"

    columns = [Column(name, partial(ap, model)) for name, model in rows]
    named: Column[tuple[int, str]] = Column("class", lambda category: category[1], "words")
    return Group(total, grid(Table([named, *columns], [list(result.categories.items())])))


def render_batch(done: Statistics, output: str) -> RenderableType:
    """Return the numbers of a run over many pictures: results, errors and rates."""
    rate = f"{done.seconds:,.1f} s, {done.rate:,.1f} a second"
    files = "1 file" if done.parts == 1 else f"{done.parts:,} files"
    said = {
        "pictures": f"{done.pictures:,} in {files} of {output}",
        "errors": f"{done.errors:,}",
        "detections": f"{done.detections:,}",
        "this run": f"{done.done_now:,} pictures in {rate}",
    }
    if done.workers:
        rates = sorted(done.workers.values())
        said["workers"] = (
            f"{len(rates)}, which did {rates[0]:,.1f} to {rates[-1]:,.1f} pictures a second"
        )
    return pairs(list(said.items()))


def render_installation(document: Document) -> RenderableType:
    """Render the document of :func:`effdet_deploy.runtimes.installation.examine`."""
    machine = {
        "effdet-deploy": f"{document['effdet-deploy']} on Python {document['python']}",
        "machine": f"{document['platform']}, {document['cpus']} CPUs",
        "INT8": "\n".join(
            f"{runtime}: {said['instructions']}, "
            + (
                "computes every INT8 file correctly"
                if said["full_range_is_right"]
                else _PORTABLE_ALONE
            )
            for runtime, said in document["int8"].items()
        ),
        "NVIDIA GPUs": ", ".join(document["gpus"]) or "none",
        "ONNX Runtime": ", ".join(document["onnxruntime_providers"]) or "not installed",
    }
    purposes = document["purposes"]
    table = Table(INSTALLED, [purposes], tone=lambda each: "passed" if each["ready"] else "failed")
    missing = [f"To {each['purpose']}: {each['command']}" for each in purposes if not each["ready"]]
    return Group(pairs(list(machine.items())), show([table, *missing]))
