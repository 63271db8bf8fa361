"""``effdet-deploy detect``: pictures in, annotated pictures and JSON out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option

Inputs = Annotated[
    list[str], typer.Argument(metavar="INPUT...", help="Pictures, folders or glob patterns.")
]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Where annotated pictures go.")
]
ScoreThreshold = Annotated[
    str | None,
    typer.Option(
        metavar="N|FILE",
        help="Leave out detections below it; default 0.3, or the model's if higher. A JSON or "
        "YAML file has one a class by its name, and * for all others.",
    ),
]
Font = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Draw class names with it before installed fonts."),
]
Result = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="The result; default DIR/detections.json."),
]


def run(
    model: option.Model,
    inputs: Inputs,
    output: Output = Path("detections"),
    score_threshold: ScoreThreshold = None,
    font: Font = None,
    backend: option.Backend = "auto",
    device: option.Device = "auto",
    threads: option.Threads = None,
    trust: option.Trust = False,
    allow_saturation: option.AllowSaturation = False,
    fast_decode: option.FastDecode = False,
    json_file: Result = None,
) -> None:
    """Detect in pictures with an exported model; annotated pictures and JSON."""
    from effdet_deploy.detection import outputs
    from effdet_deploy.detection.detector import load
    from effdet_deploy.detection.fonts import require_font
    from effdet_deploy.detection.thresholds import read_thresholds
    from effdet_deploy.reports.listings import render_detections

    if font is not None:
        require_font(font)
    asked = None if score_threshold is None else read_thresholds(score_threshold)
    copies = outputs.copies_of(inputs, output)
    result = json_file or output / "detections.json"
    outputs.require_directory(output)
    # A directory that is made for the pictures may hold the result as well.
    made = {each.resolve() for each in (output, *output.parents)}
    if result.parent.is_dir() or result.parent.resolve() not in made:
        console.require_targets(result)
    taken = (font, *console.with_sidecars(model), *copies, *copies.values())
    console.require_distinct("--json", result, *taken)
    with load(model, backend, device, threads, trust, allow_saturation) as detector:
        threshold = outputs.shown_threshold(detector, asked)
        output.mkdir(parents=True, exist_ok=True)
        said, computed = detector.spec.precision.kind, detector.runtime.precision
        if said != computed:
            console.note(
                f"{model.name} is an {said.upper()} file; this {detector.runtime.device} "
                f"computes it in {computed.upper()}."
            )
        with console.counted(len(copies)) as progress:
            done = outputs.detect_files(
                detector,
                copies,
                threshold,
                partial(progress, "Detecting"),
                font,
                fast_decode=fast_decode,
            )
    console.write_json(result, {"model": model.name} | done)
    console.stdout().print(render_detections(done["images"]))
    if escaped := outputs.about_letters(done["images"], font):
        console.note(escaped)
    summary = outputs.summarize(done["images"])
    places = f"annotated copies in {output}, JSON in {result}."
    console.stderr().print(f"{summary}; {places}", markup=False)
    outputs.require_all_read(done["images"])
