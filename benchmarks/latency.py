"""Compare the speed of our graphs with that of effdet: ``python benchmarks/latency.py``.

The programs that are timed are called peers. They take turns with the same pictures and have the
same weights: random ones from a seed, scaled so that the network detects something.
The script prints tables; on request it writes JSON with every single run, and a Markdown document
with charts. A table is in the JSON as soon as it is finished, and ``--resume`` goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peers

# Imported before anything is timed: an hour later the files may have been edited.
import scaling
from document import markdown, write_plots
from gpu_section import gpu_section
from graphs import NETWORK, PARTS, WHOLE, Case
from own_costs import batch_costs, outside_shares
from startup import measure_starts, starts
from store import Record, add_keeping, circumstances, command_of, folder, measured_quietly, tell

from effdet_deploy.artifact.spec import INPUT_NAME
from effdet_deploy.benchmark import (
    LoadWatch,
    Schedule,
    compare,
    describe_machine,
    measure_interleaved,
)
from effdet_deploy.benchmark.ceilings import measure_ceilings
from effdet_deploy.benchmark.machine import environment
from effdet_deploy.benchmark.profile import PROFILERS, convolution_work, stage_shares
from effdet_deploy.errors import EffdetDeployError
from effdet_deploy.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from effdet_deploy.benchmark import Timing

QUICK_SIZE = 256
"""The smallest image size at which OpenVINO accepts D0's coarsest level."""
FEWEST_TURNS = 9
"""The least number of turns for batches above 1, whose turns take longer; a ratio needs seven."""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_keeping(parser)
    parser.add_argument("--variants", default="d0", help="for example d0,d2,lite0")
    parser.add_argument("--image-size", type=int, help="default: every variant's own")
    parser.add_argument("--batch", default="1", help="for example 1,8")
    parser.add_argument("--single", default="", help="variants timed only at the first --batch")
    parser.add_argument("--full", help="variants with the costly peers (default: the first)")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--peers", default="", help="parts of their names, such as 'eager;naive'")
    parser.add_argument("--artifact", type=Path, action="append", default=[], help="also time it")
    parser.add_argument("--runs", type=int, default=15, help="minimum number of turns")
    parser.add_argument("--seconds", type=float, default=40.0, help="limit for one table")
    parser.add_argument("--no-startup", action="store_true", help="do not time fresh processes")
    parser.add_argument("--accuracy", type=Path, help="the file that accuracy.py --json wrote")
    parser.add_argument("--scaling", type=Path, help="the file for scaling.py to complete")
    parser.add_argument("--candidates", type=Path, help="the file that candidates.py --json wrote")
    parser.add_argument("--pictures", type=Path, help="the file that files.py --json wrote")
    parser.add_argument("--gpu", type=Path, help="the file that `make gpu` wrote")
    parser.add_argument("--at-most", type=int, help="end after this many new tables")
    parser.add_argument("--document", type=Path, help="write Markdown, and charts beside it")
    parser.add_argument("--quick", action="store_true", help="256 pixels, 7 turns, no compiling")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Time everything that the options request, and report it."""
    options = parse_arguments(arguments)
    if options.document:
        options.document.parent.mkdir(parents=True, exist_ok=True)
    try:
        with folder(options.files) as directory:
            if options.prepare:
                prepare(options, directory)
                return measure_scaling(options, directory)
            if options.gpu and options.gpu.is_file():
                # A record that cannot be shown is refused now, and not after hours of work.
                gpu_section(json.loads(options.gpu.read_text(encoding="utf-8")))
            if options.scaling:
                Record.open(options.scaling, circumstances(), {}, resume=options.resume)
            document = run(options, directory)
            if options.at_most is None and measure_scaling(options, directory):
                tell("scaling is not complete: run the command again with --resume")
    except EffdetDeployError as error:
        tell(f"error: {error}")
        return error.exit_code
    for name in ("accuracy", "candidates", "scaling", "pictures", "gpu"):
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

    Results of an earlier run stay if this run does not measure them again.

    Raises:
        ResourceError: the machine was busy, and ``--under-load`` was not given.
        UsageError: the earlier results come from another machine, other versions or other code.
    """
    empty = {"command": "", "ceilings": None, "tables": [], "startup": None}
    record = Record.open(options.json, circumstances(), empty, resume=options.resume)
    document = record.document
    document["command"] = command_of(sys.argv[1:])
    document["ceilings"] = document["ceilings"] or asdict(measure_ceilings(options.threads))
    tables = {table_key(table): table for table in document["tables"]}
    left = sys.maxsize if options.at_most is None else options.at_most
    for case in cases(options, directory):
        for part in parts(options, case):
            key = (case.variant, case.image_size, case.batch, case.threads, part)
            if key not in tables and left > 0:
                measure = partial(measure_part, case, part, options)
                tables[key] = measured_quietly(measure, under_load=options.under_load)
                left -= 1
            document["tables"] = [tables[each] for each in sorted(tables, key=str)]
            record.save()
    if not options.no_startup and document["startup"] is None and left > 0:
        case = next(cases(options, directory))
        tell(f"{case.variant}: starting fresh processes")
        measure = partial(measure_starts, case)
        document["startup"] = measured_quietly(measure, under_load=options.under_load)
        record.save()
    return document


def prepare(options: argparse.Namespace, directory: Path) -> None:
    """Export everything that will be timed, but time nothing; this needs no quiet machine."""
    for case in cases(options, directory):
        for part in parts(options, case):
            tell(f"{case.variant} batch {case.batch} {part}: exporting")
            names = [
                name for name in chosen_peers(options, case, part) if name not in peers.COMPILED
            ]
            with contextlib.ExitStack() as stack:
                peers.create_runs(case, part, names, stack)
    if not options.no_startup:
        starts(next(cases(options, directory)))


def measure_scaling(options: argparse.Namespace, directory: Path) -> int:
    """Let ``scaling.py`` measure the points missing in its JSON; return how many are left."""
    if not options.scaling:
        return 0
    given = ["--json", options.scaling, "--files", directory, "--threads", options.threads]
    for name in ("under_load", "prepare", "resume"):
        given += [f"--{name.replace('_', '-')}"] * getattr(options, name)
    arguments = list(map(str, given))
    try:
        _, left = scaling.scale(scaling.parse_arguments(arguments), command_of(arguments))
    except (EffdetDeployError, RuntimeError) as error:
        tell(f"error: {error}")
        return 1
    return left


def table_key(table: dict[str, Any]) -> tuple[Any, ...]:
    """Return the values that identify a table."""
    return tuple(table[name] for name in ("variant", "asked_size", "batch", "threads", "part"))


def cases(options: argparse.Namespace, directory: Path) -> Iterator[Case]:
    """Yield every variant at every batch size."""
    size = options.image_size or (QUICK_SIZE if options.quick else None)
    batches = [int(each) for each in options.batch.split(",")]
    for variant in options.variants.split(","):
        for batch in batches[:1] if variant in options.single.split(",") else batches:
            yield Case(variant, size, batch, options.threads, directory)


def parts(options: argparse.Namespace, case: Case) -> list[str]:
    """Return the parts of a case to time; the network alone is timed only with single images."""
    return [part for part in options.parts.split(",") if case.batch == 1 or part != NETWORK]


def schedule_for(case: Case, options: argparse.Namespace) -> Schedule:
    """Return how often to run.

    A large batch needs no settling run before the timed one: within its own run it replaces all
    that the peer before it left in the caches.
    """
    if options.quick:
        return Schedule(min_runs=7, max_runs=7, max_seconds=options.seconds)
    turns = options.runs if case.batch == 1 else min(options.runs, FEWEST_TURNS)
    return Schedule(
        min_runs=turns,
        max_runs=max(60, turns),
        max_seconds=options.seconds,
        settling_runs=1 if case.batch == 1 else 0,
    )


def measure_part(case: Case, part: str, options: argparse.Namespace) -> dict[str, Any]:
    """Time every peer of one table."""
    tell(f"{case.variant} batch {case.batch} {part}: preparing")
    whole, alone = part == WHOLE, case.batch == 1
    with contextlib.ExitStack() as stack:
        runs = peers.create_runs(case, part, chosen_peers(options, case, part), stack)
        if whole:
            runs |= peers.artifact_runs(case, options.artifact, stack)
            peers.require_agreement(runs)
        tell(f"{case.variant} batch {case.batch} {part}: timing {', '.join(runs)}")
        with LoadWatch() as watch:
            timings = measure_interleaved(runs, schedule_for(case, options))
            outside = outside_shares(case, list(runs)) if whole and alone else {}
            batch_cost = batch_costs(case, list(runs)) if whole and not alone else {}
    feeds = {INPUT_NAME: case.our_input(part)}
    return {
        "variant": case.variant,
        "asked_size": case.image_size,
        "image_size": list(case.weights.ours.config.image_size),
        "batch": case.batch,
        "threads": case.threads,
        "part": part,
        "rows": rows(timings),
        "work": asdict(convolution_work(case.our_file(part), feeds)),
        "graph_shares": graph_shares(case, part, list(runs)),
        "outside": outside,
        "batch_cost": batch_cost,
        **environment(describe_machine(), watch.load),
    }


def chosen_peers(options: argparse.Namespace, case: Case, part: str) -> list[str]:
    """Return the peers to time: all, or those whose names contain one of the parts in ``--peers``.

    Peers that take minutes to make are timed only for the variants of ``--full`` and for single
    images. Networks in INT8 need a calibration of their own and are timed only in OpenVINO.
    """
    wanted = [each for each in options.peers.split(";") if each]
    full = options.variants.split(",")[0] if options.full is None else options.full
    left_out = set(() if case.variant in full.split(",") else peers.COSTLY)
    if case.batch > 1:
        left_out |= set(peers.ALONE)
    if options.quick:
        left_out |= set(peers.COMPILED)
    if part == NETWORK:
        left_out |= set(peers.INT8 if left_out.issuperset(peers.COSTLY) else peers.INT8[-1:])
        left_out |= {*peers.NMS_OPERATOR, *peers.ALL_CANDIDATES}
    return [
        name
        for name in peers.PEERS
        if name == peers.OURS
        or (name not in left_out and (not wanted or any(each in name for each in wanted)))
    ]


def rows(timings: dict[str, Timing]) -> list[dict[str, Any]]:
    """Return a row for every peer, slowest first, with how much faster our ONNX Runtime peer is."""
    slowest_first = sorted(timings, key=lambda name: -timings[name].median)
    ratios = {
        name: None if name == peers.OURS else compare(timings[peers.OURS], timings[name]).to_dict()
        for name in slowest_first
    }
    return [
        {"name": name, **timings[name].to_dict(), "ours_is_faster_by": ratio}
        for name, ratio in ratios.items()
    ]


def graph_shares(case: Case, part: str, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return, by peer, the share of the peer's time that each part of our graph takes."""
    feeds = {INPUT_NAME: case.our_input(part)}
    float32, int8 = partial(case.our_file, part), partial(case.int8_file, part, "openvino")
    files = {
        peers.OURS: ("onnxruntime", float32),
        peers.OPENVINO: ("openvino", float32),
        peers.INT8[0]: ("openvino", int8),
    }
    return {
        name: stage_shares(PROFILERS[runtime](file(), feeds, threads=case.threads))
        for name, (runtime, file) in files.items()
        if name in names
    }


if __name__ == "__main__":
    sys.exit(main())
