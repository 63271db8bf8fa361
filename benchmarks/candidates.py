"""Measure what more candidates and more rows cost: ``python benchmarks/candidates.py``.

Candidates are the boxes that enter NMS, and rows the detections that leave it. The whole graph and
its network alone take turns on one thread. Processor time is measured, because
other programs disturb it less than the clock. The share of the time that is spent outside the
network is the median over the turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from candidates_section import filled
from graphs import NETWORK, WHOLE, Case
from peers import OPENVINO, OURS, bound_run, openvino_session
from store import Record, add_keeping, circumstances, command_of, folder, tell

from effdet_deploy.artifact.spec import CANDIDATE_CHOICES
from effdet_deploy.benchmark import LoadWatch, describe_machine
from effdet_deploy.benchmark.machine import environment
from effdet_deploy.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROWS = (100, 300)
WARM_UP = 3


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_keeping(parser)
    parser.set_defaults(threads=1)
    parser.add_argument("--variant", default="d0")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--latency", type=Path, help="a file of latency.py --json to show as well")
    parser.add_argument("--document", type=Path, help="the page to write the section into")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every combination of candidates and rows in both runtimes."""
    options = parse_arguments(arguments)
    record = Record.open(
        options.json, circumstances(), {"command": "", "shares": []}, resume=options.resume
    )
    record.document["command"] = command_of(sys.argv[1:])
    shares = record.document["shares"]
    known = {(each["engine"], each["candidates"], each["rows"]) for each in shares}
    with folder(options.files) as directory, LoadWatch() as watch:
        case = Case(options.variant, None, 1, options.threads, directory)
        for candidates in CANDIDATE_CHOICES:
            for rows in ROWS:
                path = case.our_file(WHOLE, candidates=candidates, rows=rows)
                for runtime in (OURS, OPENVINO):
                    if options.prepare or (runtime, candidates, rows) in known:
                        continue
                    share = outside_share(case, path, runtime, options.turns)
                    found = {"engine": runtime, "candidates": candidates, "rows": rows} | share
                    tell(str(found))
                    shares.append(found)
                    load = environment(describe_machine(), watch.so_far())["load"]
                    record.document["load"] = load
                    record.save()
    if options.latency:
        record.document["latency"] = json.loads(options.latency.read_text(encoding="utf-8"))
        record.save()
    if options.document:
        page = options.document.read_text(encoding="utf-8")
        write_atomically(options.document, filled(page, record.document))
    return 0


def outside_share(case: Case, path: Path, runtime: str, turns: int) -> dict[str, Any]:
    """Return the share of the graph's time that is spent outside its network."""
    runs = {
        part: started(runtime, case, file, part)
        for part, file in ((WHOLE, path), (NETWORK, case.our_file(NETWORK)))
    }
    for run in runs.values():
        for _ in range(WARM_UP):
            run()
    seconds = [{part: processor_time(run) for part, run in runs.items()} for _ in range(turns)]
    shares = sorted(1 - each[NETWORK] / each[WHOLE] for each in seconds)
    quarter = len(shares) // 4
    return {
        "median": statistics.median(shares),
        "low": shares[quarter],
        "high": shares[-1 - quarter],
        "whole_ms": 1e3 * statistics.median(each[WHOLE] for each in seconds),
    }


def started(runtime: str, case: Case, path: Path, part: str) -> Callable[[], Any]:
    """Return a function that runs a file once."""
    feed = case.our_input(part)
    if runtime == OURS:
        return bound_run(path, feed, case.threads)
    return partial(openvino_session(path, case, "f32"), feed)


def processor_time(run: Callable[[], Any]) -> float:
    """Return the processor time of one run in seconds, on all processors together."""
    begun = time.process_time()
    run()
    return time.process_time() - begun


if __name__ == "__main__":
    sys.exit(main())
