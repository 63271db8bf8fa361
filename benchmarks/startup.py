"""From the first import to the first detection, in fresh processes: ``python startup.py``.

Ours (the base install's modules alone: a run that imports torch is an error) and effdet take turns,
so that what disturbs the machine disturbs both; the other peers run a few times each.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.benchmark import LoadWatch, Timing, compare, describe_machine
from effdet_deploy.benchmark.child import json_of_child
from effdet_deploy.reports.benchmark import environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cases import Case, Weights

PAIRS = 7
OTHERS = 3
_CHILD = Path(__file__).with_name("first_detection.py")
_FIELDS = ("import_s", "load_s", "first_s", "until_first_s", "peak_memory")


@dataclass(frozen=True)
class Start:
    """What is started: a peer's name, the kind of child that does it, and its file."""

    name: str
    kind: str
    file: Path
    variant: str
    size: tuple[int, int]

    def run(self, picture: Path, threads: int) -> dict[str, Any]:
        """Start it once; return what :mod:`first_detection` says.

        Raises:
            RuntimeError: it failed, or our ONNX files took torch to run.
        """
        report: dict[str, Any] = json_of_child(
            *(_CHILD, self.kind, self.file, picture, threads, self.variant, *self.size),
            what=f"starting {self.name}",
        )
        if self.kind in ("onnxruntime", "openvino") and report["imports_torch"]:
            raise RuntimeError(f"{self.name} imported torch, which the base install has not")
        return report


def starts(case: Case, weights: Weights) -> list[Start]:
    """Return every peer that can be started, ours in ONNX Runtime and effdet first."""
    from exports import int8_file, naive_onnx, our_file
    from peers import OURS

    from effdet_deploy.pytorch.network import resolve_name

    variant = resolve_name(case.variant)
    size = weights.ours.config.image_size
    whole = "end to end"
    float32 = our_file(case, weights, whole)
    made = (
        (OURS, "onnxruntime", float32),
        ("effdet eager", "effdet", case.weights),
        ("effdet naive ONNX, ONNX Runtime", "naive", naive_onnx(case, weights)),
        ("ours, OpenVINO FP32", "openvino", float32),
        ("ours, OpenVINO INT8", "openvino", int8_file(case, weights, whole, "openvino")),
        (
            "ours, ONNX Runtime INT8",
            "onnxruntime",
            int8_file(case, weights, whole, "onnxruntime"),
        ),
        ("ours, TorchScript", "torchscript", our_file(case, weights, whole, ".torchscript")),
    )
    return [Start(name, kind, file, variant, size) for name, kind, file in made]


def measure_starts(
    case: Case, weights: Weights, pairs: int = PAIRS, others: int = OTHERS
) -> dict[str, Any]:
    """Start every peer, ours and effdet in turns; the first start of each fills caches."""
    picture = case.directory / f"{case.stem}_picture.npy"
    np.save(picture, weights.pictures[:1])
    ours, theirs, *rest = starts(case, weights)
    found: dict[str, list[dict[str, Any]]] = {each.name: [] for each in (ours, theirs, *rest)}
    with LoadWatch() as watch:
        for turn in range(pairs + 1):
            order = (ours, theirs) if turn % 2 else (theirs, ours)
            for each in order:
                found[each.name].append(each.run(picture, case.threads))
        for each in rest:
            found[each.name] = [each.run(picture, case.threads) for _ in range(others + 1)]
    timings = {
        each.name: Timing(tuple(run["until_first_s"] for run in found[each.name][1:]))
        for each in (ours, theirs)
    }
    ratio = compare(timings[ours.name], timings[theirs.name])
    rows = [
        {
            "name": each.name,
            "file_size": each.file.stat().st_size,
            "starts": len(found[each.name]) - 1,
            **{
                field: float(np.median([run[field] for run in found[each.name][1:]]))
                for field in _FIELDS
            },
        }
        for each in (ours, theirs, *rest)
    ]
    return {
        "variant": case.variant,
        "rows": rows,
        "ours_is_sooner_by": ratio.to_dict(),
        **environment(describe_machine(), watch.load),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one variant and print the result as JSON."""
    from cases import Case, load_weights

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--variant", default="d0")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--files", type=Path, help="keep exported files here, and reuse them")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        directory = given.files or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        case = Case(given.variant, given.image_size, 1, given.threads, directory, verify=False)
        print(json.dumps(measure_starts(case, load_weights(case), given.pairs), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
