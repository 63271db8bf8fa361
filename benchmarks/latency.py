"""How fast our graphs are beside their peers: ``python benchmarks/latency.py``.

Same weights (random, conditioned, seeded), same pictures, in turns. Prints tables and, on request,
writes JSON with every single run, and a Markdown document with charts. What is finished is in the
JSON at once: ``--resume`` goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Loaded before anything is timed: an hour later, an edited file would not fit the rest.
from document import markdown, write_plots
from kept import circumstances, measured_here
from startup import measure_starts, starts

from effdet_deploy.artifact.spec import INPUT_NAME
from effdet_deploy.benchmark import (
    LoadWatch,
    Plan,
    Ratio,
    Timing,
    compare,
    describe_machine,
    measure_interleaved,
)
from effdet_deploy.benchmark.ceilings import measure_ceilings
from effdet_deploy.benchmark.profile import (
    convolution_work,
    profile_onnx,
    profile_openvino,
    stage_shares,
)
from effdet_deploy.errors import EffdetDeployError, ResourceError
from effdet_deploy.files import write_atomically
from effdet_deploy.reports.benchmark import command_of, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cases import Case, Weights

PARTS = ("end to end", "network")
QUICK_SIZE = 256
"""The smallest size at which OpenVINO takes the coarsest level of D0."""
ATTEMPTS = 3
"""A table that other programs disturbed is measured again, so many times in all."""
FEWEST_TURNS = 9
"""At batch sizes above 1, where a turn takes many times as long; a ratio needs seven."""


@dataclass(frozen=True)
class Row:
    """One peer of one table; ``ratio`` is how many times ours is as fast."""

    name: str
    timing: Timing
    ratio: Ratio | None

    def to_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        ratio = None if self.ratio is None else self.ratio.to_dict()
        return {"name": self.name, **self.timing.to_dict(), "ours_is_faster_by": ratio}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", default="d0", help="such as d0,d2,lite0")
    parser.add_argument("--image-size", type=int, help="default: each variant's own")
    parser.add_argument("--batch", default="1", help="such as 1,8")
    parser.add_argument("--single", default="", help="variants timed at the first --batch alone")
    parser.add_argument("--full", help="variants with the costly peers; default the first one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--peers", default="", help="parts of their names, such as 'eager;naive'")
    parser.add_argument("--artifact", type=Path, action="append", default=[], help="also time it")
    parser.add_argument("--runs", type=int, default=15, help="at least so many turns")
    parser.add_argument("--seconds", type=float, default=40.0, help="end a table after this")
    parser.add_argument("--no-startup", action="store_true", help="leave fresh processes out")
    parser.add_argument("--accuracy", type=Path, help="what accuracy.py --json wrote")
    parser.add_argument("--scaling", type=Path, help="the JSON of scaling.py, which fills it in")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--resume", action="store_true", help="keep what is in --json already")
    parser.add_argument("--at-most", type=int, help="so many new tables, then end")
    parser.add_argument("--document", type=Path, help="write Markdown, and charts beside it")
    parser.add_argument("--files", type=Path, help="keep exported files here, and reuse them")
    parser.add_argument("--prepare", action="store_true", help="only make what --files keeps")
    parser.add_argument("--under-load", action="store_true", help="show numbers of a busy machine")
    parser.add_argument("--quick", action="store_true", help="256 pixels, 7 turns, no compiling")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Time everything that was asked for and report it."""
    options = parse_arguments(arguments)
    targets = [each for each in (options.json, options.document) if each]
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.ExitStack() as stack:
            directory = options.files or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            directory.mkdir(parents=True, exist_ok=True)
            if options.prepare:
                prepare(options, directory)
                return measure_scaling(options, directory)
            if options.resume and options.scaling and options.scaling.is_file():
                measured_here(options.scaling, circumstances())
            document = run(options, directory)
            if options.at_most is None and measure_scaling(options, directory):
                tell("scaling is not complete: give the command once more, with --resume")
    except EffdetDeployError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for name in ("accuracy", "scaling"):
        path = getattr(options, name)
        if path and path.is_file():
            document[name] = json.loads(path.read_text(encoding="utf-8"))
    print(markdown(document))
    if options.document:
        plots = write_plots(document, options.document.parent)
        write_atomically(options.document, markdown(document, plots))
    return 0


def run(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Time every variant, batch size and part; return the whole as a JSON document.

    Raises:
        ResourceError: the machine was busy, and numbers were not asked for all the same.
    """
    from cases import load_weights

    here = circumstances()
    known = earlier(options, here)
    document: dict[str, Any] = {
        **here,
        "command": command_of(sys.argv[1:]),
        "ceilings": known.get("ceilings") or asdict(measure_ceilings(options.threads)),
        "tables": [],
        "startup": known.get("startup"),
    }
    tables = {table_key(table): table for table in known.get("tables", [])}
    left = sys.maxsize if options.at_most is None else options.at_most
    for case in cases(options, directory):
        weights = None
        for part in parts(options, case):
            key = (case.variant, case.image_size, case.batch, case.threads, part)
            if key not in tables and left > 0:
                weights = weights or load_weights(case)
                measure = partial(measure_part, case, weights, part, options)
                tables[key] = measured_quietly(measure, under_load=options.under_load)
                left -= 1
            # What an earlier run measured, and this one was not asked for, stays.
            document["tables"] = [tables[key] for key in sorted(tables, key=str)]
            save(options, document)
    if not options.no_startup and document["startup"] is None and left > 0:
        case = next(cases(options, directory))
        tell(f"{case.variant}: starting fresh processes")
        measure = partial(measure_starts, case, load_weights(case))
        document["startup"] = measured_quietly(measure, under_load=options.under_load)
        save(options, document)
    return document


def prepare(options: argparse.Namespace, directory: Path) -> None:
    """Export everything that is to be timed, which needs no quiet machine, and time nothing."""
    from cases import load_weights
    from peers import COMPILED, create_runs

    for case in cases(options, directory):
        weights = load_weights(case)
        for part in parts(options, case):
            tell(f"{case.variant} batch {case.batch} {part}: exporting")
            names = [name for name in chosen_peers(options, case, part) if name not in COMPILED]
            with contextlib.ExitStack() as stack:
                create_runs(case, weights, part, names, stack)
    if not options.no_startup:
        case = next(cases(options, directory))
        starts(case, load_weights(case))


def measure_scaling(options: argparse.Namespace, directory: Path) -> int:
    """Let ``scaling.py`` fill in what its JSON lacks; return its exit code."""
    if not options.scaling:
        return 0
    given = ["--json", options.scaling, "--files", directory, "--threads", options.threads]
    for name in ("under_load", "prepare", "resume"):
        given += [f"--{name.replace('_', '-')}"] * getattr(options, name)
    command = [sys.executable, Path(__file__).with_name("scaling.py"), *given]
    return subprocess.run(  # noqa: S603
        list(map(str, command)), stdout=subprocess.DEVNULL, check=False
    ).returncode


def earlier(options: argparse.Namespace, here: dict[str, Any]) -> dict[str, Any]:
    """Return what an interrupted run left in ``--json``, if it is to be used.

    Raises:
        UsageError: it was measured on another machine, or with other versions or code.
    """
    if not (options.resume and options.json and options.json.is_file()):
        return {}
    return measured_here(options.json, here)


def table_key(table: dict[str, Any]) -> tuple[Any, ...]:
    """Return what a table is of."""
    return tuple(table[name] for name in ("variant", "asked_size", "batch", "threads", "part"))


def save(options: argparse.Namespace, document: dict[str, Any]) -> None:
    """Write what is finished."""
    if options.json:
        write_atomically(options.json, json.dumps(document, indent=1) + "\n")


def cases(options: argparse.Namespace, directory: Path) -> Iterator[Case]:
    """Yield every variant at every batch size."""
    from cases import Case

    single = options.single.split(",")
    for variant in options.variants.split(","):
        batches = [int(each) for each in options.batch.split(",")]
        for batch in batches[:1] if variant in single else batches:
            size = options.image_size or (QUICK_SIZE if options.quick else None)
            # Exports are verified by the tests and by every export; here the time is short.
            yield Case(variant, size, batch, options.threads, directory, verify=False)


def parts(options: argparse.Namespace, case: Case) -> list[str]:
    """Return the parts of a case to time: the network alone only for single images."""
    return [part for part in options.parts.split(",") if case.batch == 1 or part != "network"]


def measured_quietly(measure: Callable[[], dict[str, Any]], *, under_load: bool) -> dict[str, Any]:
    """Measure, and again while other programs disturb it.

    Raises:
        ResourceError: the machine never was quiet, and numbers were not asked for all the same.
    """
    for attempt in range(1, ATTEMPTS + 1):
        found = measure()
        reasons = found["load"]["reasons"]
        if not reasons:
            return found
        tell(f"disturbed, attempt {attempt} of {ATTEMPTS}: {' and '.join(reasons)}")
    if under_load:
        return found
    raise ResourceError(
        f"No number measured here can be trusted: {' and '.join(reasons)}.",
        "Stop the other programs and run it again with --resume, or pass --under-load.",
    )


def plan_for(case: Case, options: argparse.Namespace) -> Plan:
    """Return how often to run; a large batch leaves nothing of a neighbour in the caches."""
    if options.quick:
        return Plan(min_runs=7, max_runs=7, max_seconds=options.seconds)
    turns = options.runs if case.batch == 1 else min(options.runs, FEWEST_TURNS)
    return Plan(
        min_runs=turns,
        max_runs=max(60, turns),
        max_seconds=options.seconds,
        settling_runs=1 if case.batch == 1 else 0,
    )


def measure_part(
    case: Case, weights: Weights, part: str, options: argparse.Namespace
) -> dict[str, Any]:
    """Time every peer of one table."""
    from batches import batch_costs
    from exports import our_file, our_input
    from outside import outside_shares
    from peers import artifact_runs, create_runs, require_agreement

    tell(f"{case.variant} batch {case.batch} {part}: preparing")
    with contextlib.ExitStack() as stack:
        runs = create_runs(case, weights, part, chosen_peers(options, case, part), stack)
        if part == "end to end":
            runs |= artifact_runs(case, weights, options.artifact, stack)
            require_agreement(runs)
        tell(f"{case.variant} batch {case.batch} {part}: timing {', '.join(runs)}")
        with LoadWatch() as watch:
            timings = measure_interleaved(runs, plan_for(case, options))
            whole, alone = part == "end to end", case.batch == 1
            outside = outside_shares(case, weights, list(runs)) if whole and alone else {}
            batch_cost = batch_costs(case, weights, list(runs)) if whole and not alone else {}
    feeds = {INPUT_NAME: our_input(case, weights, part)}
    height, width = weights.ours.config.image_size
    return {
        "variant": case.variant,
        "asked_size": case.image_size,
        "image_size": [height, width],
        "batch": case.batch,
        "threads": case.threads,
        "part": part,
        "rows": [row.to_dict() for row in rows(timings)],
        "work": asdict(convolution_work(our_file(case, weights, part), feeds)),
        "graph_shares": graph_shares(case, weights, part, list(runs)),
        "outside": outside,
        "batch_cost": batch_cost,
        **environment(describe_machine(), watch.load),
    }


def chosen_peers(options: argparse.Namespace, case: Case, part: str) -> list[str]:
    """Return the peers to time: all, or those with one of the given parts in their names.

    Those that take minutes to make are for the variants asked for and for single images; networks
    in INT8, which are calibrated anew, are for OpenVINO alone.
    """
    from peers import ALONE, COMPILED, COSTLY, INT8, NMS_OPERATOR, OURS, PEERS

    wanted = [part for part in options.peers.split(";") if part]
    full = options.variants.split(",")[0] if options.full is None else options.full
    left_out = set(() if case.variant in full.split(",") else COSTLY)
    if case.batch > 1:
        left_out |= set(ALONE)
    if options.quick:
        left_out |= set(COMPILED)
    if part == "network":
        left_out |= set(INT8 if left_out.issuperset(COSTLY) else INT8[-1:])
        left_out |= set(NMS_OPERATOR)
    return [
        name
        for name in PEERS
        if name == OURS
        or (name not in left_out and (not wanted or any(part in name for part in wanted)))
    ]


def rows(timings: dict[str, Timing]) -> list[Row]:
    """Compare every peer with ours in ONNX Runtime, slowest first."""
    from peers import OURS

    ours = timings[OURS]
    found = [
        Row(name, timing, None if name == OURS else compare(ours, timing))
        for name, timing in timings.items()
    ]
    return sorted(found, key=lambda row: -row.timing.median)


def graph_shares(
    case: Case, weights: Weights, part: str, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return for our graph in each engine which share of the time each of its parts takes."""
    from exports import int8_file, our_file, our_input
    from peers import OURS

    feeds = {INPUT_NAME: our_input(case, weights, part)}
    files = {
        OURS: (profile_onnx, our_file),
        "ours, OpenVINO FP32": (profile_openvino, our_file),
        "ours, OpenVINO INT8": (
            profile_openvino,
            lambda *given: int8_file(*given, target="openvino"),
        ),
    }
    return {
        name: stage_shares(profile(file(case, weights, part), feeds, threads=case.threads))
        for name, (profile, file) in files.items()
        if name in names
    }


def tell(text: str) -> None:
    """Say on stderr what goes on."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
