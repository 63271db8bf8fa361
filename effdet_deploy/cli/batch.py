"""``effdet-deploy batch``: detect in millions of pictures on Ray, into Parquet files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option

_SILENCE = 30.0
"""Seconds between two lines of progress without a terminal, such as in a cluster's log."""

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="The pictures: a folder, a pattern, an address such as s3://bucket/pictures, or "
        "Parquet files.",
    ),
]
Output = Annotated[
    str,
    typer.Argument(
        metavar="OUTPUT", help="The folder or address that the Parquet files are written to."
    ),
]
Column = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="With Parquet files as SOURCE: the column that holds pictures or paths.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="With Parquet files as SOURCE: the column that names a picture; without it, the name "
        "is FILE#ROW.",
    ),
]
ScoreThreshold = Annotated[
    str | None,
    typer.Option(
        metavar="N|FILE",
        help="Leave out detections with a lower score; default: the model's own threshold. A "
        "JSON or YAML FILE gives one threshold per class, as for detect.",
    ),
]
Coco = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Write the rows as COCO JSON too, into this folder."),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Continue the run in OUTPUT that was stopped earlier."),
]
Part = Annotated[int, typer.Option(metavar="N", help="Number of pictures in one Parquet file.")]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT|auto",
        help="Address of a Ray cluster; default: run on this machine alone.",
    ),
]
Actors = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Number of actors (processes that each hold a copy of the model); default: as "
        "many as there is room for.",
    ),
]
CpusPerActor = Annotated[
    int,
    typer.Option(metavar="N", help="Processors that one actor uses to decode and compute."),
]
GpusPerActor = Annotated[
    float, typer.Option(metavar="N", help="GPUs of an actor; 0.5 lets two actors share one.")
]
Batch = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Most pictures in one run of the model; default: the model's largest batch.",
    ),
]


def run(
    model: option.Model,
    source: Source,
    output: Output,
    column: Column = None,
    key: Key = None,
    score_threshold: ScoreThreshold = None,
    coco: Coco = None,
    resume: Resume = False,
    part: Part = 1000,
    address: Address = None,
    actors: Actors = None,
    cpus_per_actor: CpusPerActor = 1,
    gpus_per_actor: GpusPerActor = 0.0,
    batch: Batch = None,
    fast_decode: option.FastDecode = False,
    backend: option.Backend = "auto",
    device: option.Device = "auto",
    allow_saturation: option.AllowSaturation = False,
    json_file: option.JsonFile = None,
) -> None:
    """Detect objects in any number of pictures with Ray; write Parquet files, one row a picture.

    A picture that cannot be read becomes a row with its error. A stopped run continues with
    --resume. The page "Millions of pictures" of the documentation describes the rows and how a
    cluster is used.
    """
    from effdet_deploy.batch.job import BatchOptions, detect_in_all
    from effdet_deploy.detection.thresholds import read_thresholds
    from effdet_deploy.reports.listings import render_batch

    console.require_results({"--json": json_file}, apart_from=console.with_sidecars(model))
    options = BatchOptions(
        column=column,
        key=key,
        score_threshold=read_thresholds(score_threshold),
        coco=coco,
        fast_decode=fast_decode,
        part=part,
        resume=resume,
        address=address,
        actors=actors,
        cpus=cpus_per_actor,
        gpus=gpus_per_actor,
        batch=batch,
        loading={"backend": backend, "device": device, "allow_saturation": allow_saturation},
    )
    with _progress_shown() as progress:
        statistics = detect_in_all(model, source, output, options, progress)
    console.write_json(json_file, statistics.to_dict())
    console.stdout().print(render_batch(statistics, output))


@contextlib.contextmanager
def _progress_shown() -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows how far a run is, how fast, and how much time is left."""
    from rich.progress import BarColumn, Progress, TextColumn

    screen = console.stderr()
    columns = BarColumn(), TextColumn("{task.description}", markup=False)
    last_note = time.monotonic()
    reports: list[tuple[float, int]] = []
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def tell(done: int, total: int) -> None:
            nonlocal last_note
            reports.append((time.monotonic(), done))
            text = f"{done:,} of {total:,} pictures"
            # The first call comes before Ray runs, and the second when Ray has written the first
            # part.
            if len(reports) > 2:
                (start, first), (now, _) = reports[1], reports.pop()
                rate = (done - first) / (now - start)
                text += f", {rate:,.1f} a second, {(total - done) / rate / 60:,.0f} minutes left"
            bar.update(task, completed=done, total=total, description=text)
            if not screen.is_terminal and time.monotonic() - last_note > _SILENCE:
                last_note = time.monotonic()
                console.note(text)

        yield tell
