"""``effdet-deploy detect``: pictures or videos in, annotated copies and detections out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option
from effdet_deploy.errors import EffdetDeployError, UsageError

if TYPE_CHECKING:
    from effdet_deploy.detection.detector import Detector
    from effdet_deploy.detection.outputs import Wanted
    from effdet_deploy.detection.thresholds import ScoreThreshold
    from effdet_deploy.detection.video import Video

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[INPUT...]",
        help="The inputs: pictures, folders or glob patterns; or videos: files, addresses of "
        "streams (rtsp://...) or numbers of cameras.",
    ),
]
Listed = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="Read the inputs from FILE, one per line; - reads standard input.",
    ),
]
Output = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="DIR", help="Folder that all results are written to."),
]
Formats = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="NAMES",
        help="Formats of the results in DIR, separated by commas: json, coco, yolo, yolo-conf "
        "(with scores), csv, labelme.",
    ),
]
Annotate = Annotated[
    bool,
    typer.Option("--annotate/--no-annotate", help="Write copies of pictures or videos with boxes."),
]
Crops = Annotated[
    bool,
    typer.Option(
        "--save-crops", help="Save the part of a picture inside every box, in DIR/crops/CLASS."
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES", help="Keep only these classes: names, separated by commas; default: all."
    ),
]
Threshold = Annotated[
    str | None,
    typer.Option(
        metavar="N|FILE",
        help="Leave out detections with a lower score; default: 0.3, or the model's own threshold "
        "if that is higher. A JSON or YAML FILE gives one threshold per class name, and * for all "
        "other classes.",
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Cut larger pictures into tiles of N x N pixels, which finds small objects; the whole "
        "picture is run too.",
    ),
]
Overlap = Annotated[
    float | None,
    typer.Option(
        metavar="F", help="Overlap of neighboring tiles, as a share of a tile; default: 0.25."
    ),
]
Stride = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="For videos: use only every Nth frame; default: all."),
]
MaxFps = Annotated[
    float | None,
    typer.Option(
        "--max-fps", metavar="F", help="For videos: use at most F frames per second; default: all."
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="S",
        help="For videos: how many seconds a stream may take to answer; default: 10.",
    ),
]
Font = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Font file for class names; default: Pillow's own font."),
]
Result = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="Write the result as JSON to FILE; default: DIR/detections.json.",
    ),
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
    score_threshold: Threshold = None,
    tile: Tile = None,
    overlap: Overlap = None,
    stride: Stride = None,
    max_fps: MaxFps = None,
    timeout: Timeout = None,
    font: Font = None,
    backend: option.Backend = "auto",
    device: option.Device = "auto",
    threads: option.Threads = None,
    trust: option.Trust = False,
    allow_saturation: option.AllowSaturation = False,
    fast_decode: option.FastDecode = False,
    json_file: Result = None,
) -> None:
    """Detect objects in pictures or videos; write annotated copies and the detections."""
    from effdet_deploy.detection import formats as form
    from effdet_deploy.detection.detector import load
    from effdet_deploy.detection.fonts import require_font
    from effdet_deploy.detection.outputs import Wanted, read_list, require_directory
    from effdet_deploy.detection.thresholds import read_thresholds
    from effdet_deploy.detection.tiling import tiles_of
    from effdet_deploy.detection.video import TIMEOUT, Video, is_video

    require_font(font)
    tiles = tiles_of(tile, overlap, fast_decode=fast_decode)
    forms = (*form.read_formats(formats), *([form.CROPS] if save_crops else []))
    task = _Task(
        model,
        partial(load, model, backend, device, threads, trust, allow_saturation),
        read_thresholds(score_threshold),
        classes,
        Wanted(output, forms, tiles=tiles, font=font, fast_decode=fast_decode),
        annotate,
        json_file or (output / "detections.json" if form.JSON in forms else None),
    )
    require_directory(output)
    named = inputs or []
    if any(map(is_video, named)):
        for_pictures = {"--format": formats != form.JSON, "--from": listed}
        for_pictures |= {"--save-crops": save_crops, "--fast-decode": fast_decode}
        _refuse_options(for_pictures, "pictures, not for videos")
        waited = TIMEOUT if timeout is None else timeout
        reading = partial(Video, stride=stride or 1, max_fps=max_fps, timeout=waited)
        _in_videos(task, named, reading)
    else:
        for_videos = {"--stride": stride, "--max-fps": max_fps, "--timeout": timeout}
        _refuse_options(for_videos, "videos, not for pictures")
        _in_pictures(task, named, read_list(listed))


@dataclass(frozen=True)
class _Task:
    """A checked command line, for pictures or videos."""

    model: Path
    load: Callable[[], Detector]
    threshold: ScoreThreshold | None
    classes: str | None
    wanted: Wanted
    annotate: bool
    result: Path | None

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[Detector, ScoreThreshold, Wanted]]:
        """Load the model and create the directory, after all files were checked."""
        from effdet_deploy.detection import outputs

        with self.load() as detector:
            threshold = outputs.shown_threshold(detector, self.threshold)
            chosen = outputs.chosen_classes(self.classes, detector)
            self.wanted.output.mkdir(parents=True, exist_ok=True)
            console.note(outputs.about_precision(detector, self.model.name))
            yield detector, threshold, replace(self.wanted, classes=chosen)

    def require_results(self, read: Iterable[Path], written: Iterable[Path]) -> None:
        """Refuse results that cannot be written, or would replace a file that the command uses.

        The directory of a result need not exist yet if the command will create it.
        """
        output = self.wanted.output
        made = {each.resolve() for each in (output, *output.parents)}
        results = [each for each in (self.result, *written) if each]
        for each in results:
            if each.parent.is_dir() or each.parent.resolve() not in made:
                console.require_targets(each)
        used = (self.wanted.font, *console.with_sidecars(self.model), *read, *written)
        console.require_distinct("--json", self.result, *used)


def _refuse_options(given: Mapping[str, object], kind: str) -> None:
    """Refuse all options of ``given`` that have a value, since they are for another ``kind``."""
    for name, value in given.items():
        if value not in (None, False):
            raise UsageError(f"{name} is for {kind}.", f"Leave {name} out.")


def _in_pictures(task: _Task, named: list[str], listed: list[str]) -> None:
    from effdet_deploy.detection import formats as form
    from effdet_deploy.detection import outputs
    from effdet_deploy.reports.listings import render_detections

    output, forms, result = task.wanted.output, task.wanted.forms, task.result
    pictures = outputs.pictures_of(named, output, listed)
    copies = outputs.copies_of(pictures, output) if task.annotate else {}
    form.require_free(forms, output)
    files = form.result_files(forms, output)
    task.require_results((*pictures, *copies.values()), files)
    images: list[dict[str, Any]] = []
    with task.opened() as (detector, threshold, chosen):
        wanted = replace(chosen, copies=copies)
        document = {"model": task.model.name}
        document |= outputs.describe(detector, threshold, wanted) | {"images": images}
        with _collecting_rows(images, len(pictures), result, document) as tell:
            outputs.detect_files(detector, pictures, threshold, wanted, tell)
    console.write_json(result, document)
    console.stdout().print(render_detections(images))
    console.note(outputs.about_letters(images, wanted.font) if copies else "")
    places = [f"annotated copies in {output}"] if copies else []
    places += ([f"JSON in {result}"] if result else []) + form.places_said(forms, output)
    said = "; ".join(filter(None, (outputs.summarize(images), ", ".join(places))))
    console.stderr().print(f"{said}.", markup=False)
    outputs.require_all_read(images, in_json=result is not None)


def _in_videos(task: _Task, named: list[str], reading: Callable[[str], Video]) -> None:
    from effdet_deploy.detection import outputs
    from effdet_deploy.detection.recording import detect_video, recorded
    from effdet_deploy.reports.listings import render_videos

    output, result = task.wanted.output, task.result
    files = recorded(named, output, annotate=task.annotate)
    written = [each for pair in files.values() for each in (pair.lines, pair.annotated) if each]
    task.require_results(map(Path, named), written)
    rows: list[dict[str, Any]] = []
    with task.opened() as (detector, threshold, wanted):
        document = {"model": task.model.name} | outputs.describe(detector, threshold, wanted)
        document["videos"] = rows
        with _written_if_stopped(result, document, rows):
            for source, pair in files.items():
                video = reading(source)
                with console.counted(video.expected) as progress:
                    tell = partial(progress, video.source)
                    detect_video(detector, video, pair, threshold, wanted, tell, rows)
    console.write_json(result, document)
    console.stdout().print(render_videos(rows))
    places = [str(each) for each in (*written, result) if each]
    console.stderr().print(f"Written: {', '.join(places)}.", markup=False)


@contextlib.contextmanager
def _collecting_rows(
    images: list[dict[str, Any]], total: int, result: Path | None, document: dict[str, Any]
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a function that adds a row to ``images`` and shows how many rows there are."""
    with console.counted(total) as progress, _written_if_stopped(result, document, images):

        def tell(row: dict[str, Any]) -> None:
            images.append(row)
            progress("Detecting", len(images))

        yield tell


@contextlib.contextmanager
def _written_if_stopped(
    result: Path | None, document: dict[str, Any], rows: list[Any]
) -> Iterator[None]:
    """Write the document with the finished ``rows`` if the ``with`` block is stopped half-way."""
    try:
        yield
    except (KeyboardInterrupt, EffdetDeployError):
        if rows:
            console.write_json(result, document | {"stopped": True})
        raise
