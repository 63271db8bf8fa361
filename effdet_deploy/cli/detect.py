"""``effdet-deploy detect``: pictures in, annotated pictures and JSON out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option
from effdet_deploy.errors import EffdetDeployError

Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[INPUT...]", help="Pictures, folders or glob patterns."),
]
Listed = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="FILE", help="Inputs from a file, one a line; - is standard input."
    ),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Where everything is written.")
]
Formats = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="NAMES",
        help="Results in DIR, separated by commas: json, coco, yolo, yolo-conf (with scores), csv, "
        "labelme.",
    ),
]
Annotate = Annotated[
    bool, typer.Option("--annotate/--no-annotate", help="Draw the boxes on copies of the pictures.")
]
Crops = Annotated[
    bool, typer.Option("--save-crops", help="Save what is in each box: DIR/crops/CLASS.")
]
Classes = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Only these classes, by name, separated by commas."),
]
ScoreThreshold = Annotated[
    str | None,
    typer.Option(
        metavar="N|FILE",
        help="Leave out detections below it; default 0.3, or the model's if higher. A JSON or "
        "YAML file has one a class by its name, and * for all others.",
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(metavar="N", help="Run larger pictures in tiles of N x N pixels, and whole."),
]
Overlap = Annotated[
    float | None,
    typer.Option(metavar="F", help="The share of a tile that its neighbors show too; 0.25."),
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
    inputs: Inputs = None,
    output: Output = Path("detections"),
    listed: Listed = None,
    formats: Formats = "json",
    annotate: Annotate = True,
    save_crops: Crops = False,
    classes: Classes = None,
    score_threshold: ScoreThreshold = None,
    tile: Tile = None,
    overlap: Overlap = None,
    font: Font = None,
    backend: option.Backend = "auto",
    device: option.Device = "auto",
    threads: option.Threads = None,
    trust: option.Trust = False,
    allow_saturation: option.AllowSaturation = False,
    fast_decode: option.FastDecode = False,
    json_file: Result = None,
) -> None:
    """Detect in pictures with an exported model; annotated pictures, and results in files."""
    from effdet_deploy.detection import formats as form
    from effdet_deploy.detection import outputs
    from effdet_deploy.detection.detector import load
    from effdet_deploy.detection.fonts import require_font
    from effdet_deploy.detection.thresholds import read_thresholds
    from effdet_deploy.detection.tiling import tiles_of
    from effdet_deploy.reports.listings import render_detections

    require_font(font)
    asked = read_thresholds(score_threshold)
    tiles = tiles_of(tile, overlap, fast_decode=fast_decode)
    forms = (*form.read_formats(formats), *([form.CROPS] if save_crops else []))
    pictures = outputs.pictures_of(inputs or [], output, outputs.read_list(listed))
    copies = outputs.copies_of(pictures, output) if annotate else {}
    result = json_file or (output / "detections.json" if form.JSON in forms else None)
    outputs.require_directory(output)
    form.require_free(forms, output)
    files = form.result_files(forms, output)
    _require_results(output, result, *files)
    taken = (font, *console.with_sidecars(model), *pictures, *copies.values(), *files)
    console.require_distinct("--json", result, *taken)
    with load(model, backend, device, threads, trust, allow_saturation) as detector:
        threshold = outputs.shown_threshold(detector, asked)
        chosen = outputs.chosen_classes(classes, detector)
        wanted = outputs.Wanted(output, forms, copies, chosen, tiles, font, fast_decode)
        output.mkdir(parents=True, exist_ok=True)
        console.note(outputs.about_precision(detector, model.name))
        images: list[dict[str, Any]] = []
        document = {"model": model.name} | outputs.describe(detector, threshold, wanted, images)
        with _counting(images, len(pictures), result, document) as tell:
            outputs.detect_files(detector, pictures, threshold, wanted, tell)
    console.write_json(result, document)
    console.stdout().print(render_detections(images))
    console.note(outputs.about_letters(images, font) if copies else "")
    places = [f"annotated copies in {output}"] if copies else []
    places += ([f"JSON in {result}"] if result else []) + form.places_said(forms, output)
    said = "; ".join(filter(None, (outputs.summarize(images), ", ".join(places))))
    console.stderr().print(f"{said}.", markup=False)
    outputs.require_all_read(images, in_json=result is not None)


@contextlib.contextmanager
def _counting(
    images: list[dict[str, Any]], total: int, result: Path | None, document: dict[str, Any]
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give what adds a row to ``images`` and shows how many there are.

    Where the work stops half-way, what is done is in the result.
    """
    with console.counted(total) as progress:

        def tell(row: dict[str, Any]) -> None:
            images.append(row)
            progress("Detecting", len(images))

        try:
            yield tell
        except (KeyboardInterrupt, EffdetDeployError):
            if images:
                console.write_json(result, document | {"stopped": True})
            raise


def _require_results(output: Path, *files: Path | None) -> None:
    """Refuse files that could not be written; those in a directory that will be made can be."""
    made = {each.resolve() for each in (output, *output.parents)}
    for each in filter(None, files):
        if each.parent.is_dir() or each.parent.resolve() not in made:
            console.require_targets(each)
