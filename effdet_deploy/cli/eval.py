"""``effdet-deploy eval``: the accuracy of exported models, and of eager PyTorch, side by side."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.table import Table
    from rich.text import Text

    from effdet_deploy.detection.detector import Detector
    from effdet_deploy.evaluation.accuracy import Accuracy
    from effdet_deploy.evaluation.cocoset import CocoSet

_EAGER = "PyTorch"
_PERCENT = 100


def run(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL...", help="Exported models; the first is the baseline."),
    ],
    coco: Annotated[
        Path, typer.Option("--coco", metavar="FILE", help="COCO annotations with boxes.")
    ],
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The pictures; default beside FILE.")
    ] = None,
    weights: Annotated[
        str, typer.Option(help="Measure these weights in eager PyTorch too, as the baseline.")
    ] = "",
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Use only the first N pictures.")
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="AP of every class.")] = False,
    backend: option.Backend = "auto",
    device: option.Device = "auto",
    threads: option.Threads = None,
    trust: option.Trust = False,
    json_file: option.JsonFile = None,
) -> None:
    """Measure mAP on a COCO set; differences are paired, with a 95% bootstrap interval."""
    from effdet_deploy.detection.detector import load
    from effdet_deploy.diagnosis.sides import eager_detector
    from effdet_deploy.evaluation.accuracy import require_pycocotools
    from effdet_deploy.evaluation.cocoset import read_coco
    from effdet_deploy.evaluation.predictions import require_common_categories

    models = list(dict.fromkeys(models))
    console.require_targets(json_file)
    checkpoint = Path(weights) if weights else None
    console.require_distinct(json_file, coco, checkpoint, *console.with_sidecars(*models))
    require_pycocotools()
    dataset = read_coco(coco, images, limit)
    measured: dict[str, Accuracy] = {}
    with contextlib.ExitStack() as stack:
        loaded = {
            str(model): stack.enter_context(load(model, backend, device, threads, trust))
            for model in models
        }
        if weights:
            eager = eager_detector(next(iter(loaded.values())).spec, weights)
            loaded = {_EAGER: eager, **loaded}
        for detector in loaded.values():
            require_common_categories(detector.spec, dataset)
        for name, detector in loaded.items():
            measured[name] = _measured(Path(name).name, detector, dataset)
    document = _document(measured, dataset)
    console.write_json(json_file, document)
    console.stdout().print(_table(document))
    if per_class:
        console.stdout().print(_class_table(document, dataset))


def _measured(name: str, detector: Detector, dataset: CocoSet) -> Accuracy:
    from effdet_deploy.evaluation.accuracy import measure
    from effdet_deploy.evaluation.predictions import predict

    with _progress(name, len(dataset)) as progress:
        return measure(predict(detector, dataset, progress), dataset)


@contextlib.contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.markup import escape
    from rich.progress import Progress

    screen = console.stderr()
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(escape(name), total=total)
        yield lambda done: bar.update(task, completed=done)


def _document(measured: dict[str, Accuracy], dataset: CocoSet) -> dict[str, Any]:
    from effdet_deploy.evaluation.accuracy import difference

    baseline = next(iter(measured.values()))
    rows = []
    for name, each in measured.items():
        row: dict[str, Any] = {
            "model": name,
            "ap": each.ap,
            "ap50": each.ap50,
            "ap75": each.ap75,
            "by_category": each.by_category,
            "difference": None,
        }
        if each is not baseline:
            row["difference"] = dataclasses.asdict(difference(each, baseline))
        rows.append(row)
    return {"pictures": len(dataset), "models": rows}


def _table(document: dict[str, Any]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    names = _short_names(document)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=f"{document['pictures']} pictures")
    table.add_column("model", overflow="fold")
    for head in ("mAP", "AP50", "AP75", "difference, points"):
        table.add_column(head, justify="right")
    for name, row in zip(names, document["models"], strict=True):
        scores = [f"{_PERCENT * row[each]:.2f}" for each in ("ap", "ap50", "ap75")]
        table.add_row(name, *scores, _interval(row["difference"]))
    return table


def _short_names(document: dict[str, Any]) -> list[Text]:
    from rich.text import Text

    from effdet_deploy.files import distinct_names

    return [
        Text(each) for each in distinct_names([Path(row["model"]) for row in document["models"]])
    ]


def _interval(found: dict[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{found['points']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"


def _class_table(document: dict[str, Any], dataset: CocoSet) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("class")
    for model in _short_names(document):
        table.add_column(model, justify="right")
    for category, name in dataset.categories.items():
        values = [row["by_category"].get(category) for row in document["models"]]
        table.add_row(Text(name), *("" if v is None else f"{_PERCENT * v:.2f}" for v in values))
    return table
