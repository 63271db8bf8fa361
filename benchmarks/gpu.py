"""Test and time this project on a GPU within minutes: ``scripts/gpu.sh FOLDER``.

Runs the tests marked ``gpu``, compares what the digits detector finds on the GPU and on the CPU,
and times several programs (``gpu_peers.py`` calls them peers) end to end. The script uses the files
that ``gpu_kit.py`` packed and needs no network. Every
step is written to ``FOLDER/gpu.json`` when it is done; after an interruption, a run with the same
folder goes on from there. Without a GPU this is a dry run: the same steps at their smallest sizes,
with times that mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from gpu_kit import DIGITS, ROOT, unpack
from store import Record, circumstances, tell

from effdet_deploy.benchmark import (
    LoadWatch,
    Schedule,
    compare,
    describe_machine,
    measure_interleaved,
)
from effdet_deploy.benchmark.machine import environment
from effdet_deploy.benchmark.measure import MIN_PAIRS
from effdet_deploy.errors import EffdetDeployError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from effdet_deploy.benchmark import Timing

SECONDS = 480
"""How long a run may take if --seconds is not given."""
DONE, FAILED, NOT_RUN, RUNNING = "done", "failed", "not run", "cut off"
RESULT = "gpu.json"
NOT_HERE = ("tests/native",)
"""Tests that are left out: they build libeffdet with TensorRT's headers, see docs/native.md."""


@dataclass(frozen=True)
class Plan:
    """What is run and how often.

    Attributes:
        device: ``cuda``, or ``cpu`` for a dry run.
        variants: variant names, with the side of the pictures; None is the variant's own size.
        batches: the batch sizes, ascending.
        schedule: how often the peers of a table run.
        compiler: torch.compile's backend.
    """

    device: str
    variants: dict[str, int | None]
    batches: tuple[int, ...]
    schedule: Schedule
    compiler: str

    @property
    def is_dry(self) -> bool:
        """Whether this is a dry run, whose times mean nothing."""
        return self.device == "cpu"


ON_A_GPU = Plan(
    device="cuda",
    variants={"d0": None, "d2": None},
    batches=(1, 8, 32),
    schedule=Schedule(min_runs=15, max_runs=60, max_seconds=8, warm_up_seconds=4),
    compiler="inductor",
)
DRY = Plan(
    device="cpu",
    variants={"lite0": 128},
    batches=(1, 2),
    schedule=Schedule(min_runs=1, max_runs=1, warm_up_seconds=1e-3),
    compiler="eager",
)


class NotHereError(Exception):
    """A step cannot be run on this machine; the message says why."""


@dataclass(frozen=True)
class Step:
    """One step of the run; it may take ``seconds``, and usually needs half of that."""

    name: str
    seconds: float
    work: Callable[[], dict[str, Any]]


def steps(plan: Plan, files: Path) -> Iterator[Step]:
    """Yield the steps, most informative first; ``files`` is the folder with the kit's files."""
    # effdet is imported only now, because it may have come with the kit.
    import gpu_peers as peers
    from graphs import Case

    yield Step("tests", 150, partial(run_tests, dry=plan.is_dry))
    yield Step("digits", 90, partial(compare_digits, files, plan.device))
    subjects = {
        variant: peers.Subject(
            Case(variant, side, plan.batches[-1], 2, files), plan.device, plan.compiler
        )
        for variant, side in plan.variants.items()
    }

    def table(names: Sequence[str], variant: str, batch: int, seconds: float) -> Step:
        beside = ", ".join(name for name in names if name != peers.OURS)
        work = partial(time_table, plan, subjects[variant], names, batch)
        return Step(f"{variant}, batch {batch}: {beside}", seconds, work)

    first, *others = plan.variants
    one, *more = plan.batches
    for variant in plan.variants:
        for batch in plan.batches:
            yield table(peers.BESIDE_EAGER, variant, batch, 60)
    for batch in plan.batches:
        yield table(peers.BESIDE_ONNXRUNTIME, first, batch, 40)
    # Compiling takes minutes, so single pictures of both variants come before batches.
    yield table(peers.BESIDE_COMPILED, first, one, 120)
    yield table(peers.BESIDE_RECORDED, first, one, 120)
    for batch in plan.batches:
        yield table(peers.BESIDE_TENSORRT, first, batch, 150)
    for variant in others:
        yield table(peers.BESIDE_COMPILED, variant, one, 150)
    for variant in plan.variants:
        for batch in more:
            yield table(peers.BESIDE_COMPILED, variant, batch, 150)


def run_tests(*, dry: bool) -> dict[str, Any]:
    """Run every test marked ``gpu`` that builds nothing; return the outcome of each test."""
    wanted = [
        path
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "mark.gpu" in path.read_text(encoding="utf-8")
        and not path.relative_to(ROOT).as_posix().startswith(NOT_HERE)
    ]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        how = ("-q", "-m", "gpu", "-p", "no:cacheprovider", "--continue-on-collection-errors")
        command = [sys.executable, "-m", "pytest", *how, f"--junit-xml={report}"]
        command += ["--dry-gpu"] * dry + list(map(str, wanted))
        done = subprocess.run(  # noqa: S603 - our own interpreter and tests
            command, check=False, cwd=ROOT, capture_output=True, text=True
        )
        tell(done.stdout[-4000:])
        if not report.exists():
            raise RuntimeError(f"pytest wrote no report: {done.stderr[-400:]}")
        cases = list(ET.parse(report).iter("testcase"))  # noqa: S314
    tests = {f"{each.get('classname')}: {each.get('name')}": _outcome(each) for each in cases}
    counts = {
        kind: sum(each["outcome"] == kind for each in tests.values())
        for kind in ("passed", "skipped", "failure", "error")
    }
    failed = f"{counts['failure'] + counts['error']} tests failed"
    return {
        "counts": counts,
        "tests": tests,
        "not_run": list(NOT_HERE),
        "failed": failed if counts["failure"] or counts["error"] else None,
    }


def _outcome(case: ET.Element) -> dict[str, Any]:
    kinds = [each for each in case if each.tag in ("skipped", "failure", "error")]
    found: dict[str, Any] = {"outcome": kinds[0].tag if kinds else "passed"}
    if kinds:
        found["why"] = (kinds[0].get("message") or "")[-400:]
    return found | {"seconds": float(case.get("time", 0))}


def compare_digits(files: Path, device: str) -> dict[str, Any]:
    """Compare the digits detector's detections on ``device`` with those on the CPU."""
    from gpu_graphs import write_archive

    from effdet_deploy import ExportOptions
    from effdet_deploy.artifact.modelfile import read_spec
    from effdet_deploy.detection.detector import Detector
    from effdet_deploy.parity.comparison import compare as compare_detectors

    pictures = sorted((files / "scenes" / "images").iterdir())
    carried, found = files / "digits.torchscript", {}
    options = ExportOptions(
        weights=str(DIGITS / "digits_d0.safetensors"),
        candidates=read_spec(carried, "torchscript").output.candidates,
    )
    # The archive in the kit may come from another PyTorch, so this PyTorch writes two of its own.
    full = write_archive(files / "digits-fp32.torchscript", None, options)
    half = write_archive(files / "digits-fp16.torchscript", None, options, "fp16")
    with Detector.load(full, "torchscript", "cpu") as known:
        for name, path, backend in (
            ("TorchScript FP32, as exported", carried, "torchscript"),
            ("TorchScript FP32, scripted there", full, "torchscript"),
            ("TorchScript FP16, scripted there", half, "torchscript"),
            ("ONNX Runtime FP32", files / "digits.onnx", "onnxruntime"),
        ):
            try:
                with Detector.load(path, backend, device) as candidate:
                    report = compare_detectors(candidate, known, pictures)
            except EffdetDeployError as error:
                found[name] = {"status": NOT_RUN, "why": str(error)}
                continue
            parity = report.detections
            found[name] = {"status": report.status} | (
                {
                    "matched": parity.matched,
                    "of": parity.reference_count,
                    "iou": parity.iou,
                    "box_difference": parity.box_difference,
                    "score_difference": parity.score_difference,
                }
                if parity
                else {}
            )
    failed = [name for name, each in found.items() if each["status"] == "failed"]
    return {
        "pictures": len(pictures),
        "found": found,
        "failed": f"{', '.join(failed)} differ from the CPU" if failed else None,
    }


def time_table(plan: Plan, subject: Any, names: Sequence[str], batch: int) -> dict[str, Any]:
    """Time the peers in ``names`` in turns.

    Raises:
        NotHereError: none of the peers that ours would be compared with runs here.
    """
    from gpu_peers import OURS

    if missing := subject.lacking(names):
        raise NotHereError(missing)
    with contextlib.ExitStack() as stack:
        runs, left_out = subject.runs(names, batch, stack)
        if all(name.startswith(OURS) for name in runs):
            raise NotHereError("; ".join(dict.fromkeys(left_out.values())))
        with LoadWatch() as watch:
            timings = measure_interleaved(runs, plan.schedule)
    # Compiled code and recorded graphs hold memory that the next table needs.
    torch.compiler.reset()
    if plan.device == "cuda":
        torch.cuda.empty_cache()
    return {
        "variant": subject.case.variant,
        "image_size": list(subject.case.weights.ours.config.image_size),
        "batch": batch,
        "rows": rows(timings, OURS),
        "left_out": left_out,
        **environment(describe_machine(), watch.load),
    }


def rows(timings: dict[str, Timing], ours: str) -> list[dict[str, Any]]:
    """Return a row for every peer, slowest first: how much faster ours is in the same precision."""
    found = []
    for name in sorted(timings, key=lambda each: -timings[each].median):
        base, timing = f"{ours} {name.rpartition(' ')[2]}", timings[name]
        ratio = None
        if name != base and base in timings and len(timing.seconds) >= MIN_PAIRS:
            ratio = compare(timings[base], timing).to_dict()
        found.append({"name": name, **timing.to_dict(), "ours_is_faster_by": ratio})
    return found


def run(todo: Sequence[Step], record: Record, seconds: float, patience: float = 1.0) -> bool:
    """Do every step for which time is left; return False if one failed.

    A step may take ``patience`` times its own ``seconds``.
    """
    ends = time.monotonic() + seconds
    state, results = record.document["steps"], record.document["results"]
    for step in todo:
        state.setdefault(step.name, {"state": NOT_RUN, "why": "the run ended before it"})
    for step in todo:
        left, limit = ends - time.monotonic(), patience * step.seconds
        if state[step.name]["state"] == DONE:
            continue
        if left < limit / 2:
            why = f"{max(0, left):.0f} s were left, and it may take {limit:.0f}"
            state[step.name] = {"state": NOT_RUN, "why": why}
        else:
            tell(f"{step.name} ({left:.0f} s left)")
            state[step.name] = {"state": RUNNING}
            record.save()
            state[step.name] = attempted(step, min(limit, left), results)
            tell(f"  {state[step.name]}")
        record.save()
    return all(state[each.name]["state"] != FAILED for each in todo)


def attempted(step: Step, seconds: float, results: dict[str, Any]) -> dict[str, Any]:
    """Do a step within ``seconds``, put its result into ``results``, and return its state."""

    def end(*_: object) -> None:
        raise TimeoutError(f"it did not end within {seconds:.0f} s")

    begun = time.monotonic()
    handler = signal.signal(signal.SIGALRM, end)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        results[step.name] = step.work()
        failed = results[step.name].get("failed")
        found = {"state": FAILED, "why": failed} if failed else {"state": DONE}
    except (NotHereError, TimeoutError) as error:
        found = {"state": NOT_RUN, "why": str(error)}
    except Exception as error:  # noqa: BLE001 - the other steps still run
        found = {"state": FAILED, "why": f"{type(error).__name__}: {error}"[:600]}
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)
    return found | {"seconds": round(time.monotonic() - begun, 1)}


def card(plan: Plan) -> dict[str, Any]:
    """Describe the GPU."""
    if plan.is_dry:
        return {"name": "no GPU"}
    found = torch.cuda.get_device_properties(0)
    return {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "memory": found.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def summary(document: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a summary."""
    yield f"{document['card']['name']}{', dry: no time means anything' * document['dry']}"
    for name, step in document["steps"].items():
        yield f"{name}: {step['state']} {step.get('why', '')}".rstrip()
        result = document["results"].get(name, {})
        if "counts" in result:
            yield f"  {result['counts']}"
        for each, found in result.get("found", {}).items():
            yield f"  {each}: {found}"
        for row in result.get("rows", ()):
            ratio = row["ours_is_faster_by"]
            shown = f", ours is {ratio['median']:.2f}x {ratio['interval']}" if ratio else ""
            yield f"  {row['name']}: {row['median_ms']:.2f} ms{shown}"
        for each, why in result.get("left_out", {}).items():
            yield f"  {each} left out: {why}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all steps and record them; return 1 if a step failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where gpu.json is written")
    parser.add_argument("--kit", type=Path, default=ROOT / "gpu-kit", help="from `make gpu-kit`")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="end within this time")
    parser.add_argument("--dry", action="store_true", help="run as on a machine without a GPU")
    options = parser.parse_args(arguments)
    plan = DRY if options.dry or not torch.cuda.is_available() else ON_A_GPU
    begun = time.monotonic()
    # PyTorch computes convolutions in TF32 by default. Our files use FP32, so all peers do here.
    torch.backends.cudnn.allow_tf32 = False
    with tempfile.TemporaryDirectory() as scratch:
        try:
            files = unpack(options.kit, Path(scratch))
            here = circumstances() | {"card": card(plan), "dry": plan.is_dry}
            empty = {"steps": {}, "results": {}}
            record = Record.open(options.folder / RESULT, here, empty)
        except EffdetDeployError as error:
            tell(f"error: {error}")
            return error.exit_code
        todo = list(steps(plan, files))
        # With more time for the whole run, every step gets more time as well.
        patience = max(1.0, options.seconds / SECONDS)
        passed = run(todo, record, options.seconds - (time.monotonic() - begun), patience)
    print("\n".join(summary(record.document)))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
