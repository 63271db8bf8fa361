"""``effdet-deploy detect``: pictures in, annotated pictures and JSON out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from effdet_deploy.detection.detector import Detector, Outcome

_SAVED_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_JPEG_QUALITY = 92
_DEFAULT_THRESHOLD = 0.3


def run(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An exported model.")],
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Pictures, folders or glob patterns.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where annotated pictures go.")
    ] = Path("detections"),
    score_threshold: Annotated[
        float | None,
        typer.Option(help="Leave out detections below it; default 0.3, or the model's if higher."),
    ] = None,
    backend: option.Backend = "auto",
    device: option.Device = "auto",
    threads: option.Threads = None,
    trust: option.Trust = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="The result; default DIR/detections.json."),
    ] = None,
) -> None:
    """Detect in pictures with an exported model; annotated pictures and JSON."""
    from effdet_deploy.detection.detector import detect_each, load

    targets = _plan(inputs, output)
    result = json_file or output / "detections.json"
    _require_directory(output)
    # A directory that is made for the pictures may hold the result as well.
    made = {each.resolve() for each in (output, *output.parents)}
    if result.parent.is_dir() or result.parent.resolve() not in made:
        console.require_targets(result)
    console.require_distinct(result, *console.with_sidecars(model), *targets, *targets.values())
    with load(model, backend, device, threads, trust) as detector:
        threshold = _threshold(score_threshold, detector)
        output.mkdir(parents=True, exist_ok=True)
        _say_precision(model, detector)
        outcomes = []
        for outcome in _with_progress(
            detect_each(detector, list(targets), threshold), len(targets)
        ):
            _save(outcome, targets[outcome.source])
            outcomes.append(_described(outcome, targets[outcome.source]))
        document = _document(model, detector, threshold, outcomes)
    console.write_json(result, document)
    console.stdout().print(_table(outcomes))
    _finish(outcomes, output, result)


def _plan(inputs: list[str], output: Path) -> dict[Path, Path]:
    """Pair each picture with the file its annotated copy goes to; none is a picture given.

    Raises:
        ImageError: an input names no picture.
        UsageError: an annotated copy would replace a picture that was given.
    """
    from effdet_deploy.detection.images import find_images
    from effdet_deploy.errors import UsageError

    targets: dict[Path, Path] = {}
    taken: set[str] = set()
    for each in inputs:
        for picture in _new_pictures(find_images(each), each, output):
            if picture in targets:
                continue
            targets[picture] = _free_name(output, picture, taken)
    given = {picture.resolve() for picture in targets}
    for picture, target in targets.items():
        if target.resolve() in given:
            raise UsageError(
                f"The annotated copy of '{picture}' would replace the picture '{target}'.",
                "Choose another directory with --output.",
            )
    return targets


def _require_directory(output: Path) -> None:
    """Check that ``output`` is a directory that can be written to, or can be made.

    Raises:
        UsageError: it is a file, or stands where nothing can be written.
    """
    from effdet_deploy.errors import UsageError
    from effdet_deploy.files import require_writable_target

    existing = next(each for each in (output, *output.parents) if each.exists())
    if not existing.is_dir():
        raise UsageError(
            f"The output '{output}' is no directory: '{existing}' is a file.", "Choose another."
        )
    require_writable_target(existing / "detections.json")


def _new_pictures(found: list[Path], source: str, output: Path) -> list[Path]:
    """Leave out what an earlier run wrote, where the output lies inside the folder searched."""
    if not Path(source).is_dir() or output.resolve() == Path(source).resolve():
        return found
    return [each for each in found if not each.resolve().is_relative_to(output.resolve())]


def _free_name(output: Path, picture: Path, taken: set[str]) -> Path:
    """Return where the copy of ``picture`` goes; ``taken`` are names that other copies have.

    Names that differ in case alone are one file on macOS and Windows.
    """
    suffix = picture.suffix if picture.suffix.lower() in _SAVED_SUFFIXES else ".png"
    name, count = picture.stem + suffix, 1
    while name.casefold() in taken:
        count += 1
        name = f"{picture.stem}-{count}{suffix}"
    taken.add(name.casefold())
    return output / name


def _threshold(asked: float | None, detector: Detector) -> float:
    floor = detector.checked_threshold(asked)
    return max(_DEFAULT_THRESHOLD, floor) if asked is None else floor


def _say_precision(model: Path, detector: Detector) -> None:
    said, computed = detector.spec.precision.kind, detector.runtime.precision
    if said != computed:
        console.note(
            f"{model.name} is an {said.upper()} file; this {detector.runtime.device} computes it "
            f"in {computed.upper()}."
        )


def _with_progress(outcomes: Iterator[Outcome], total: int) -> Iterator[Outcome]:
    screen = console.stderr()
    if not screen.is_terminal:
        return outcomes
    from rich.progress import track

    return iter(track(outcomes, "Detecting", total, console=screen, transient=True))


def _save(outcome: Outcome, target: Path) -> None:
    if outcome.detections is None or outcome.image is None:
        return
    from effdet_deploy.files import deliver, staging

    drawn = outcome.detections.draw(outcome.image)
    with staging(target) as directory:
        staged = directory / target.name
        drawn.save(staged, quality=_JPEG_QUALITY)
        deliver(staged, target)


def _described(outcome: Outcome, target: Path) -> dict[str, Any]:
    if outcome.error is not None:
        return {"file": str(outcome.source), "error": str(outcome.error)}
    height, width = outcome.image.shape[:2] if outcome.image is not None else (0, 0)
    return {
        "file": str(outcome.source),
        "width": width,
        "height": height,
        "annotated": str(target),
        "found": str(outcome.detections),
        "detections": outcome.detections.to_json() if outcome.detections is not None else [],
    }


def _document(
    model: Path, detector: Detector, threshold: float, outcomes: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "model": model.name,
        "backend": detector.runtime.backend,
        "device": detector.runtime.device,
        "precision": detector.runtime.precision,
        "score_threshold": threshold,
        "images": outcomes,
    }


def _table(outcomes: list[dict[str, Any]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    single = len(outcomes) == 1 and "error" not in outcomes[0]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    heads = ("class", "score", "box (x1, y1, x2, y2)") if single else ("picture", "size", "found")
    for head in heads:
        table.add_column(head, overflow="fold")
    rows = _detection_rows(outcomes[0]) if single else map(_picture_row, outcomes)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _detection_rows(outcome: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (each["name"], f"{each['score']:.3f}", ", ".join(f"{side:.1f}" for side in each["box"]))
        for each in outcome["detections"]
    ]


def _picture_row(outcome: dict[str, Any]) -> tuple[str, str, str]:
    if "error" in outcome:
        return outcome["file"], "", f"error: {outcome['error']}"
    return outcome["file"], f"{outcome['width']}x{outcome['height']}", outcome["found"]


def _finish(outcomes: list[dict[str, Any]], output: Path, result: Path) -> None:
    """Sum up, and leave with the exit code of a bad input if a picture was unreadable."""
    from effdet_deploy.errors import ImageError

    failed = [each for each in outcomes if "error" in each]
    done = len(outcomes) - len(failed)
    count = sum(len(each.get("detections", ())) for each in outcomes)
    console.stderr().print(
        f"Found {_counted(count, 'detection')} in {_counted(done, 'picture')}; "
        f"annotated copies in {output}, JSON in {result}.",
        markup=False,
    )
    if failed:
        raise ImageError(
            f"{len(failed)} of {_counted(len(outcomes), 'picture')} could not be read: "
            f"{failed[0]['error']}",
            "The others were done; the JSON lists every failure.",
        )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
