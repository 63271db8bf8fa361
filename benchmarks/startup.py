"""Time fresh processes from the first import to the first detection: ``python startup.py``.

Our file in ONNX Runtime and effdet take turns, so that other load on the machine disturbs both; the
other programs start a few times each. Our ONNX files use only modules of the base install: if such
a start imports torch, that is an error.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from store import KEEPS_BYTECODE, folder, tell

from effdet_deploy.benchmark import LoadWatch, Timing, compare, describe_machine
from effdet_deploy.benchmark.child import json_of_child
from effdet_deploy.benchmark.machine import environment
from effdet_deploy.errors import EffdetDeployError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphs import Case

PAIRS = 7
"""How many counted starts our file in ONNX Runtime and effdet have, in turns."""
OTHERS = 3
"""How many counted starts each of the other programs has."""
_CHILD = Path(__file__).with_name("first_detection.py")
_FIELDS = ("import_s", "load_s", "first_s", "until_first_s", "peak_memory")


def starts(case: Case) -> dict[str, tuple[str, Path]]:
    """Return how every program is started; our file in ONNX Runtime and effdet come first.

    Returns:
        By name, the kind of child process (see ``first_detection.py``), and its file.
    """
    from graphs import WHOLE
    from peers import EAGER, INT8, NAIVE, OPENVINO, OURS, TORCHSCRIPT

    float32 = case.our_file(WHOLE)
    return {
        OURS: ("onnxruntime", float32),
        EAGER: ("effdet", case.checkpoint),
        NAIVE[0]: ("naive", case.naive_onnx()),
        OPENVINO: ("openvino", float32),
        INT8[0]: ("openvino", case.int8_file(WHOLE, "openvino")),
        INT8[2]: ("onnxruntime", case.int8_file(WHOLE, "onnxruntime")),
        TORCHSCRIPT: ("torchscript", case.our_file(WHOLE, ".torchscript")),
    }


def measure_starts(case: Case, pairs: int = PAIRS, others: int = OTHERS) -> dict[str, Any]:
    """Start every program, our file in ONNX Runtime and effdet in turns.

    The first start of each program does not count, because it fills caches.

    Raises:
        RuntimeError: a start failed, or one of our ONNX files imported torch.
    """
    from effdet_deploy.pytorch.network import resolve_name

    picture = case.directory / f"{case.stem}_picture.npy"
    np.save(picture, case.weights.pictures[:1])
    network = (resolve_name(case.variant), *case.weights.ours.config.image_size)
    made = starts(case)
    ours, theirs, *rest = made
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in made}

    def start(name: str) -> None:
        kind, file = made[name]
        report = json_of_child(
            *(_CHILD, kind, file, picture, case.threads, *network),
            what=f"starting {name}",
            environment=KEEPS_BYTECODE,
        )
        if kind in ("onnxruntime", "openvino") and report["imports_torch"]:
            raise RuntimeError(f"{name} imported torch, which is not in the base install")
        found[name].append(report)

    with LoadWatch() as watch:
        for turn in range(pairs + 1):
            for name in (ours, theirs) if turn % 2 else (theirs, ours):
                start(name)
        for name in rest:
            for _ in range(others + 1):
                start(name)
    counted = {name: runs[1:] for name, runs in found.items()}
    timings = [
        Timing(tuple(run["until_first_s"] for run in counted[name])) for name in (ours, theirs)
    ]
    rows = [
        {"name": name, "file_size": file.stat().st_size, "starts": len(counted[name])}
        | {field: float(np.median([run[field] for run in counted[name]])) for field in _FIELDS}
        for name, (_, file) in made.items()
    ]
    return {
        "variant": case.variant,
        "rows": rows,
        "ours_is_sooner_by": compare(*timings).to_dict(),
        **environment(describe_machine(), watch.load),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one variant and print the result as JSON."""
    from graphs import Case

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--variant", default="d0")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--files", type=Path, help="keep exported files here, and reuse them")
    given = parser.parse_args(arguments)
    try:
        with folder(given.files) as directory:
            case = Case(given.variant, given.image_size, 1, given.threads, directory)
            print(json.dumps(measure_starts(case, given.pairs), indent=1))
    except EffdetDeployError as error:
        tell(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
