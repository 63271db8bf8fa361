"""Write a GPU's results as a section of the document: ``python benchmarks/gpu_section.py docs``.

Reads ``docs/gpu.json``, which ``make gpu`` wrote and somebody copied there, and replaces the
section in ``docs/benchmarks.md``. ``latency.py`` writes this section too, with the whole document.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sections import with_section

from effdet_deploy.errors import UsageError
from effdet_deploy.files import write_atomically
from effdet_deploy.reports.benchmark import markdown_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TITLE = "## On a GPU"
RECORD, DOCUMENT = "gpu.json", "benchmarks.md"
COLUMNS = ("", "median ms", "ms an image", "95% interval", "ours is")
NOTHING = """\
No GPU has run these graphs yet. `make gpu` runs and times them within eight minutes, on a
machine that has a GPU and PyTorch ([For developers](developers.md#evidence-from-a-gpu)). Then this
section shows the results and names the card.
"""
TEXT = """\
The times are end to end, as above: the same letterboxed pictures come from host memory, and
the rows of boxes go back to host memory. The programs take turns. FP32 is FP32 for all of them
(TF32 is off). The last column compares with our TorchScript file in the same precision. *CUDA
graph* is our graph, recorded once and started as a whole. The times of torch.compile leave the
compilation out.
"""


def gpu_section(record: dict[str, Any] | None) -> str:
    """Return the section.

    Raises:
        UsageError: the record comes from a dry run, whose times mean nothing.
    """
    if record is None:
        return f"{TITLE}\n\n{NOTHING}"
    if record["dry"]:
        raise UsageError(
            "docs/gpu.json comes from a dry run, whose times mean nothing.",
            "Run `make gpu` on a machine with a GPU, or remove the file.",
        )
    return "\n".join([f"{TITLE}: {record['card']['name']}\n", *_parts(record)])


def _parts(record: dict[str, Any]) -> Iterator[str]:
    card, results = record["card"], record["results"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    yield TEXT
    yield (
        f"Card: {card['name']}, compute capability {card['capability']}, "
        f"{card['memory'] / 2**30:.0f} GiB; CUDA {card['cuda']}, cuDNN {card['cudnn']}. "
        f"Machine: {record['machine']}. Versions: {versions}.\n"
    )
    if tests := results.get("tests"):
        counts = tests["counts"]
        wrong = counts["failure"] + counts["error"]
        yield (
            f"Of the tests marked `gpu`, {counts['passed']} passed, {wrong} failed and "
            f"{counts['skipped']} need what that machine lacks.\n"
        )
    if digits := results.get("digits"):
        cells = [
            (
                name,
                each["status"],
                f"{each['matched']} of {each['of']}" if "of" in each else each.get("why", ""),
                f"{each['iou']}" if "of" in each else "",
            )
            for name, each in digits["found"].items()
        ]
        count = digits["pictures"]
        yield f"The digits detector on {count} pictures, against TorchScript on the CPU:\n"
        yield markdown_table(("", "verdict", "rows found again", "at an IoU of"), cells)
    for name, step in record["steps"].items():
        if table := results.get(name, {}).get("rows"):
            result = results[name]
            size = "x".join(map(str, result["image_size"]))
            yield f"### {result['variant'].upper()} at {size}, batch {result['batch']}\n"
            yield markdown_table(COLUMNS, [_cells(row, result["batch"]) for row in table])
            turns = f"{table[0]['runs']} turns."
            left_out = "".join(
                f" {each} was left out: {why.splitlines()[0]}"
                for each, why in result["left_out"].items()
            )
            yield f"{turns}{left_out}\n"
        elif step["state"] != "done":
            yield f"{name}: {step['state']}, because {step.get('why', 'the run ended there')}.\n"


def _cells(row: dict[str, Any], batch: int) -> tuple[str, ...]:
    interval = row["median_interval_ms"]
    return (
        row["name"],
        f"{row['median_ms']:.2f}",
        f"{row['median_ms'] / batch:.2f}",
        f"{interval[0]:.2f}-{interval[1]:.2f}" if interval else "",
        faster_by(row),
    )


def faster_by(row: dict[str, Any]) -> str:
    """Return how much faster ours is than the program in ``row``; empty if that is not known."""
    ratio = row["ours_is_faster_by"]
    if ratio is None:
        return ""
    low, high = ratio["interval"]
    return f"{ratio['median']:.2f}x ({low:.2f}-{high:.2f}), {ratio['verdict']}"


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of ``make gpu`` in the folder, or None if there is none."""
    path = folder / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def main(arguments: Sequence[str]) -> int:
    """Replace the section of the document in a folder."""
    folder = Path(arguments[0])
    path = folder / DOCUMENT
    try:
        section = gpu_section(read_record(folder))
        text = with_section(path.read_text(encoding="utf-8"), TITLE, section)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    write_atomically(path, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
