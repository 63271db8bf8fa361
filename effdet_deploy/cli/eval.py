"""``effdet-deploy eval``: the mAP of exported models and of eager PyTorch, side by side."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option

_EAGER = "PyTorch"

Models = Annotated[
    list[Path],
    typer.Argument(metavar="MODEL...", help="Exported models; the first is the baseline."),
]
Coco = Annotated[
    Path,
    typer.Option(
        "--data",
        "--coco",
        metavar="FILE|DIR",
        help="What to measure on: COCO annotations, YOLO's data.yaml or a Pascal VOC folder.",
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder of the pictures; default: images/ beside the annotations, else their own "
        "folder.",
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        help="Measure these weights in eager PyTorch too and use them as the baseline: a path, "
        "a URL, pretrained or random."
    ),
]
PerClass = Annotated[bool, typer.Option("--per-class", help="Show the AP of every class as well.")]


def run(
    models: Models,
    coco: Coco,
    images: Images = None,
    weights: Weights = "",
    limit: option.Limit = None,
    class_map: option.ClassMap = None,
    per_class: PerClass = False,
    backend: option.Backend = "auto",
    device: option.Device = "auto",
    threads: option.Threads = None,
    trust: option.Trust = False,
    allow_saturation: option.AllowSaturation = False,
    fast_decode: option.FastDecode = False,
    json_file: option.JsonFile = None,
) -> None:
    """Measure the mAP of exported models on annotated pictures.

    Differences in mAP have a 95% interval, from a bootstrap over the pictures.
    """
    from effdet_deploy.detection.detector import load
    from effdet_deploy.diagnosis.open_reference import eager_detector
    from effdet_deploy.evaluation.accuracy import require_pycocotools
    from effdet_deploy.evaluation.evaluating import evaluate
    from effdet_deploy.evaluation.sets import read_set
    from effdet_deploy.reports.listings import render_evaluation

    models = list(dict.fromkeys(models))
    read = (coco, class_map, Path(weights) if weights else None, *console.with_sidecars(*models))
    console.require_results({"--json": json_file}, apart_from=read)
    require_pycocotools()
    dataset = read_set(coco, images, limit, class_map)
    with contextlib.ExitStack() as stack:
        detectors = {
            str(model): stack.enter_context(
                load(model, backend, device, threads, trust, allow_saturation)
            )
            for model in models
        }
        if weights:
            eager = eager_detector([each.spec for each in detectors.values()], weights)
            detectors = {_EAGER: eager, **detectors}
        with console.counted(len(dataset)) as progress:
            result = evaluate(detectors, dataset, progress, fast_decode=fast_decode)
    console.write_json(json_file, result.to_dict())
    console.stdout().print(render_evaluation(result, by_class=per_class))
    for said in result.notes:
        console.note(said)
