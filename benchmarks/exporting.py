"""Compare exports by two versions of this package: ``python benchmarks/exporting.py BEFORE``.

BEFORE is the folder of another checkout (``git worktree add ../before COMMIT``). Both versions
export the same networks with random weights and the default verification. They take turns, and
every run is a process of its own. Processor time is measured, with that of child processes, because
other programs disturb it less than the clock. Memory is that of the largest process. The script
also says whether both versions wrote the same graph.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from store import KEEPS_BYTECODE

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parents[1]
COLUMNS = ("variant", "before s", "now s", "before GB", "now GB", "by the clock s", "graphs")
_PROGRAM = "import sys; from effdet_deploy.__main__ import export_main; sys.exit(export_main())"


@dataclass(frozen=True)
class Run:
    """One export: its seconds, the memory of its largest process, and the hash of its graph."""

    processor_s: float
    clock_s: float
    peak_bytes: int
    graph_sha256: str


def export_with(checkout: Path, options: Sequence[str]) -> Run:
    """Export once with the package in ``checkout``.

    Raises:
        RuntimeError: the export failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "model.onnx")
        log = Path(folder, "log.txt")
        begun = time.perf_counter()
        with log.open("wb") as said:
            child = subprocess.Popen(  # noqa: S603 - our own interpreter and program
                [sys.executable, "-c", _PROGRAM, *options, str(target)],
                env=os.environ | KEEPS_BYTECODE | {"PYTHONPATH": str(checkout)},
                cwd=folder,
                stdout=said,
                stderr=said,
            )
            # wait4 gives the memory of this child, resource.getrusage that of the largest child.
            _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        clock = time.perf_counter() - begun
        if child.returncode:
            raise RuntimeError(f"{checkout.name} failed: {log.read_text(errors='replace')[-800:]}")
        # Only the graph is hashed, because the metadata around it names versions.
        graph = onnx.load(target).graph.SerializeToString(deterministic=True)
        digest = hashlib.sha256(graph).hexdigest()
    return Run(used.ru_utime + used.ru_stime, clock, 1024 * used.ru_maxrss, digest)


def compared(before: Path, now: Path, options: Sequence[str], turns: int) -> list[str]:
    """Export with both checkouts in turns, and return a row of the table."""
    runs: dict[Path, list[Run]] = {before: [], now: []}
    for turn in range(turns):
        for checkout in (before, now) if turn % 2 == 0 else (now, before):
            runs[checkout].append(export_with(checkout, options))
            sys.stderr.write(f"{checkout.name}: {runs[checkout][-1]}\n")
    seconds, clocks, peaks = (
        [statistics.median(getattr(run, field) for run in runs[each]) for each in (before, now)]
        for field in ("processor_s", "clock_s", "peak_bytes")
    )
    graphs = {run.graph_sha256 for each in runs.values() for run in each}
    return [
        *(f"{each:.1f}" for each in seconds),
        *(f"{each / 1e9:.2f}" for each in peaks),
        " → ".join(f"{each:.1f}" for each in clocks),
        "equal" if len(graphs) == 1 else "differ",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare two checkouts and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before", type=Path, help="the folder of the other checkout")
    parser.add_argument("--now", type=Path, default=HERE)
    parser.add_argument("--variants", default="d0,d4,d7x")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("options", nargs="*", help="further options of effdet-export, after --")
    given = parser.parse_args(arguments)
    for checkout in (given.before, given.now):
        # Without this check, the installed package would be compared with itself.
        if not (checkout / "effdet_deploy/__main__.py").is_file():
            parser.error(f"'{checkout}' is not a checkout of effdet-deploy")
    lines = [COLUMNS, ("---",) * len(COLUMNS)]
    for variant in given.variants.split(","):
        options = ("--weights", "random", "--variant", variant, *given.options)
        row = compared(given.before.resolve(), given.now.resolve(), options, given.turns)
        lines.append((variant.upper(), *row))
    sys.stdout.write("".join(f"| {' | '.join(line)} |\n" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
