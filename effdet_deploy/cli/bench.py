"""``effdet-deploy bench``: how fast exported models run on this machine, with error bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option
from effdet_deploy.errors import UsageError, require_package
from effdet_deploy.files import write_atomically

Batch = Annotated[
    str,
    typer.Option(
        metavar="N,N", help="Batch sizes to time; default: the size that a model is tuned for."
    ),
]
Threads = Annotated[
    str,
    typer.Option(
        metavar="N,N", help="Numbers of CPU threads to time; default: the runtime decides."
    ),
]
Runs = Annotated[int, typer.Option(metavar="N", help="Least number of runs of a model.")]
MaxRuns = Annotated[int, typer.Option(metavar="N", help="Most runs of a model.")]
Share = Annotated[
    float,
    typer.Option(
        help="Stop when the confidence interval of the median is this small, as a share of the "
        "median."
    ),
]
Seconds = Annotated[
    float, typer.Option(help="Stop after this many seconds, once the least number of runs is done.")
]
UnderLoad = Annotated[
    bool,
    typer.Option(
        "--under-load", help="Show the result even if other programs kept the machine busy."
    ),
]
Markdown = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Write the result as Markdown to FILE, and charts beside it."
    ),
]


def run(
    models: option.Models,
    batch: Batch = "",
    threads: Threads = "",
    backend: option.Backend = "auto",
    device: option.Device = "auto",
    runs: Runs = 15,
    max_runs: MaxRuns = 200,
    precision: Share = 0.02,
    seconds: Seconds = 30.0,
    under_load: UnderLoad = False,
    trust: option.Trust = False,
    allow_saturation: option.AllowSaturation = False,
    json_file: option.JsonFile = None,
    markdown: Markdown = None,
) -> None:
    """Time exported models on this machine, in turns, until their medians are precise."""
    from effdet_deploy.benchmark.benchmarking import Settings, bench
    from effdet_deploy.benchmark.measure import Schedule
    from effdet_deploy.reports import benchmark as report

    if max_runs < runs:
        raise UsageError(
            f"--max-runs {max_runs} is less than --runs {runs}.", "Raise --max-runs as well."
        )
    settings = Settings(
        backend,
        device,
        option.positive_numbers("--batch", batch),
        option.positive_numbers("--threads", threads) or (None,),
        trust,
        Schedule(runs, max_runs, precision, seconds),
        allow_saturation,
    )
    if markdown is not None:
        require_package("matplotlib", "drawing charts", "report")
        report.require_own_charts(markdown)
    results = {"--json": json_file, "--markdown": markdown}
    console.require_results(results, apart_from=console.with_sidecars(*models))
    with console.stages() as begin:
        result = bench(models, settings, begin)
    if not under_load:
        result.load.require_quiet()
    console.write_json(json_file, result.to_dict())
    if markdown is not None:
        pictures = {}
        for title, chart in report.to_charts(result).items():
            pictures[title] = report.chart_name(markdown, title)
            write_atomically(markdown.with_name(pictures[title]), chart)
        write_atomically(markdown, report.to_markdown(result, pictures))
    console.stdout().print(report.render_benchmark(result))
    console.note("\n".join([str(result.machine), *report.load_lines(result.load)]))
    if any(not each.end_to_end.warm for each in result.results):
        console.note(
            "Times still changed when warm-up ended after "
            f"{settings.schedule.warm_up_seconds:.0f} s; take them with care."
        )
