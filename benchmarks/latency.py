"""How fast our graphs are beside their peers: ``python benchmarks/latency.py``.

Same weights (random, conditioned, seeded), same pictures, one process, in turns. Prints a table
and, on request, writes JSON with every single run and a Markdown document.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effdet_deploy.benchmark import LoadWatch, Plan, compare, describe_machine, measure_interleaved
from effdet_deploy.benchmark.profile import profile_onnx, stage_shares
from effdet_deploy.benchmark.report import environment
from effdet_deploy.errors import EffdetDeployError
from effdet_deploy.files import write_atomically
from effdet_deploy.spec import INPUT_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peers import Case, Weights

    from effdet_deploy.benchmark import Ratio, Timing

PARTS = ("end to end", "network")
QUICK_SIZE = 256
"""The smallest size at which OpenVINO takes the coarsest level of D0."""


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
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--peers", default="", help="parts of their names, such as 'eager;naive'")
    parser.add_argument("--artifact", type=Path, action="append", default=[], help="also time it")
    parser.add_argument("--runs", type=int, default=15, help="at least so many turns")
    parser.add_argument("--seconds", type=float, default=120.0, help="end a table after this")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--document", type=Path, help="write Markdown, and plots beside it")
    parser.add_argument("--files", type=Path, help="keep exported files here, and reuse them")
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
            document = run(options, directory)
    except EffdetDeployError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    from document import markdown, write_plots

    print(markdown(document))
    if options.json:
        write_atomically(options.json, json.dumps(document, indent=1) + "\n")
    if options.document:
        plots = write_plots(document, options.document.parent)
        write_atomically(options.document, markdown(document, plots))
    return 0


def run(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Time every variant, batch size and part; return the whole as a JSON document.

    Raises:
        ResourceError: the machine was busy, and numbers were not asked for all the same.
    """
    from peers import Case, load_weights

    tables = []
    for variant in options.variants.split(","):
        for batch in map(int, options.batch.split(",")):
            size = options.image_size or (QUICK_SIZE if options.quick else None)
            case = Case(variant, size, batch, options.threads, directory, not options.quick)
            weights = load_weights(case)
            tables += [
                measure_part(case, weights, part, options) for part in options.parts.split(",")
            ]
    command = " ".join(sys.argv[1:])
    return {"machine": str(describe_machine()), "command": command, "tables": tables}


def measure_part(
    case: Case, weights: Weights, part: str, options: argparse.Namespace
) -> dict[str, Any]:
    """Time every peer of one table."""
    from peers import artifact_runs, create_runs, require_agreement

    tell(f"{case.variant} batch {case.batch} {part}: preparing")
    plan = Plan(
        min_runs=7 if options.quick else options.runs,
        max_runs=max(7, options.runs),
        max_seconds=options.seconds,
    )
    with contextlib.ExitStack() as stack:
        runs = create_runs(case, weights, part, chosen_peers(options), stack)
        if part == "end to end":
            runs |= artifact_runs(case, weights, options.artifact, stack)
            require_agreement(runs)
        tell(f"{case.variant} batch {case.batch} {part}: timing {', '.join(runs)}")
        with LoadWatch() as watch:
            timings = measure_interleaved(runs, plan)
    if not options.under_load:
        watch.load.require_quiet()
    height, width = weights.ours.config.image_size
    return {
        "variant": case.variant,
        "image_size": [height, width],
        "batch": case.batch,
        "threads": case.threads,
        "part": part,
        "rows": [row.to_dict() for row in rows(timings)],
        "graph_shares": graph_shares(case, weights, part),
        **environment(describe_machine(), watch.load),
    }


def chosen_peers(options: argparse.Namespace) -> list[str]:
    """Return the peers to time: all, or those with one of the given parts in their names."""
    from peers import OURS, PEERS

    wanted = [part for part in options.peers.split(";") if part]
    skipped = "torch.compile" if options.quick and not wanted else "\0"
    return [
        name
        for name in PEERS
        if name == OURS
        or (skipped not in name and (not wanted or any(part in name for part in wanted)))
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


def graph_shares(case: Case, weights: Weights, part: str) -> dict[str, float]:
    """Return where our graph spends its time in ONNX Runtime."""
    from peers import our_file, our_input

    feeds = {INPUT_NAME: our_input(case, weights, part)}
    return stage_shares(
        profile_onnx(our_file(case, weights, part), feeds, threads=case.threads, runs=10)
    )


def tell(text: str) -> None:
    """Say on stderr what goes on."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
