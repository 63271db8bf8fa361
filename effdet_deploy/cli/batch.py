"""``effdet-deploy batch``: millions of pictures in, Parquet out, on Ray."""

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
"""Seconds between two lines of progress where there is no terminal, such as in a cluster's log."""


def run(
    model: option.Model,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder, a pattern, an address such as s3://bucket/pictures, or Parquet files.",
        ),
    ],
    output: Annotated[
        str,
        typer.Argument(metavar="OUTPUT", help="A folder or an address for the Parquet files."),
    ],
    column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The column of a Parquet SOURCE: pictures, or paths."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The column that names each picture; default FILE#ROW."),
    ] = None,
    score_threshold: Annotated[
        str | None,
        typer.Option(
            metavar="N|FILE", help="Leave out detections below it; default: the model's own."
        ),
    ] = None,
    coco: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the rows as COCO JSON too, into this folder."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that was stopped in OUTPUT.")
    ] = False,
    part: Annotated[int, typer.Option(metavar="N", help="Pictures in one Parquet file.")] = 1000,
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT|auto", help="A Ray cluster; default: this machine alone."),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(metavar="N", help="Copies of the model; default: as many as there is room."),
    ] = None,
    cpus_per_actor: Annotated[
        int, typer.Option(metavar="N", help="Processors of each, which decode and compute.")
    ] = 1,
    gpus_per_actor: Annotated[
        float, typer.Option(metavar="N", help="GPUs of each; 0.5 lets two share one.")
    ] = 0.0,
    batch: Annotated[
        int | None,
        typer.Option(metavar="N", help="Pictures in one run of the model; default: its most."),
    ] = None,
    fast_decode: option.FastDecode = False,
    backend: option.Backend = "auto",
    device: option.Device = "auto",
    allow_saturation: option.AllowSaturation = False,
    json_file: option.JsonFile = None,
) -> None:
    """Detect in any number of pictures on Ray; every picture is a row in Parquet files.

    A picture that cannot be read is a row with its error. A run that was stopped goes on with
    --resume. docs/batch.md describes the rows and what to expect of a cluster.
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
    with _told() as progress:
        statistics = detect_in_all(model, source, output, options, progress)
    console.write_json(json_file, statistics.to_dict())
    console.stdout().print(render_batch(statistics, output))


@contextlib.contextmanager
def _told() -> Iterator[Callable[[int, int], None]]:
    """Give a function that says how far a run is, how fast, and how long it still takes."""
    from rich.progress import BarColumn, Progress, TextColumn

    screen = console.stderr()
    columns = BarColumn(), TextColumn("{task.description}", markup=False)
    said = time.monotonic()
    given: list[tuple[float, int]] = []
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def tell(done: int, total: int) -> None:
            nonlocal said
            given.append((time.monotonic(), done))
            text = f"{done:,} of {total:,} pictures"
            # Of the first two, one came before Ray was there, the other when it had just begun.
            if len(given) > 2:
                (start, first), (now, _) = given[1], given.pop()
                rate = (done - first) / (now - start)
                text += f", {rate:,.1f} a second, {(total - done) / rate / 60:,.0f} minutes left"
            bar.update(task, completed=done, total=total, description=text)
            if not screen.is_terminal and time.monotonic() - said > _SILENCE:
                said = time.monotonic()
                console.note(text)

        yield tell
