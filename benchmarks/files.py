r"""Measure how many picture files per second become boxes.

    python benchmarks/files.py --json FILE

The script makes a folder of seeded 1080p JPEGs. The ways from file to boxes take turns, and in one
turn all of them get the same files. The processor time of decoding, of the letterbox and of the
network is measured in the same turns, stage by stage on one thread; the rate that it allows on all
processors is the bound. Ultralytics' predictor is measured too if ``--ultralytics`` names a folder
into which it was installed, beside the packages of this environment:

    uv pip install --no-deps --target FOLDER ultralytics ultralytics-thop \
        opencv-python-headless psutil polars polars-runtime-32

``--accuracy`` only measures what ``--fast-decode`` costs the digits detector in mAP.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from file_ways import Stages, created_ways, prepared_model
from files_section import filled
from PIL import Image
from store import (
    Record,
    add_keeping,
    circumstances,
    command_of,
    finished,
    folder,
    measured_quietly,
    tell,
)

from effdet_deploy import ExportOptions, export, load
from effdet_deploy.benchmark import LoadWatch, describe_machine
from effdet_deploy.benchmark.machine import environment
from effdet_deploy.errors import EffdetDeployError
from effdet_deploy.evaluation.accuracy import difference, measure
from effdet_deploy.evaluation.cocoset import read_coco
from effdet_deploy.evaluation.predictions import predict
from effdet_deploy.files import write_atomically
from effdet_deploy.synthetic import structured_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Way = Callable[[Sequence[Path]], None]

ROOT = Path(__file__).parents[1]
HEIGHT, WIDTH = 1080, 1920
QUALITY = 92
SEED = 19
SIDES = (1024, 896)
"""Sides of the JPEGs for ``--accuracy``. A fast decode halves them as long as they cover the
network's input of 256 pixels: 1024 becomes 256, and 896 becomes 448."""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_keeping(parser)
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--only", action="append", help="ways whose name contains this")
    parser.add_argument("--ultralytics", type=Path, metavar="FOLDER", help="where it is installed")
    parser.add_argument("--document", type=Path, help="the page to write the section into")
    parser.add_argument("--accuracy", type=int, metavar="SCENES", help="measure --fast-decode")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the options request, and store it."""
    options = parse_arguments(arguments)
    if hasattr(os, "sched_setaffinity"):
        # From here on, all threads and processes use only the requested number of processors.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    try:
        empty = {"command": "", "pictures": None, "accuracy": None}
        record = Record.open(options.json, circumstances(), empty, resume=options.resume)
        with folder(options.files) as directory:
            if options.accuracy:
                record.document["accuracy"] = fast_decode_cost(directory, options.accuracy)
            else:
                paths = made_pictures(directory / "pictures", options.pictures)
                prepared_model(directory)
                if options.prepare:
                    return 0
                measured = partial(measure_ways, options, directory, paths)
                found = measured_quietly(measured, under_load=options.under_load)
                record.document["pictures"] = found
                record.document["command"] = command_of(sys.argv[1:])
            record.save()
        if options.document:
            page = options.document.read_text(encoding="utf-8")
            write_atomically(options.document, filled(page, record.document))
    except EffdetDeployError as error:
        tell(f"error: {error}")
        return error.exit_code
    tell(str(record.document["pictures"] or ""))
    tell(str(record.document["accuracy"] or ""))
    return 0


def made_pictures(directory: Path, count: int) -> list[Path]:
    """Write seeded pictures as JPEGs, as cameras do, unless an earlier run has written them."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{index:04}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        if not path.exists():
            (picture,) = structured_pictures(1, HEIGHT, WIDTH, SEED + index)
            with finished(path) as partly:
                Image.fromarray(picture).save(partly, quality=QUALITY)
    return paths


def measure_ways(
    options: argparse.Namespace, directory: Path, paths: Sequence[Path]
) -> dict[str, Any]:
    """Let all ways take turns; return their files per second, and the bounds of every turn."""
    turns: list[dict[str, float]] = []
    costs: list[dict[str, float]] = []
    size = max(1, len(paths) // options.turns)
    with LoadWatch() as watch, contextlib.ExitStack() as stack:
        ways = created_ways(directory, options.threads, options.ultralytics, stack)
        if options.only:
            ways = {
                name: way
                for name, way in ways.items()
                if any(each in name for each in options.only)
            }
        stages = Stages(directory)
        for way in ways.values():
            way(paths[: 2 * options.threads])
        for turn in range(options.turns):
            chosen = paths[turn * size : (turn + 1) * size]
            costs.append(stages.seconds(chosen[: max(4, size // 4)]))
            turns.append({name: len(chosen) / seconds(way, chosen) for name, way in ways.items()})
            tell(f"turn {turn + 1}: {costs[-1]} {turns[-1]}")
    network = [options.threads / sum(each.values()) for each in costs]
    reading = [options.threads / (each["decode"] + each["letterbox"]) for each in costs]
    return {
        "files": len(paths),
        "files_a_turn": size,
        "cost_ms": {
            name: 1e3 * statistics.median(each[name] for each in costs) for name in costs[0]
        },
        "bound": summary(network, network),
        "reading_bound": summary(reading, reading),
        "rows": {
            name: summary(
                [each[name] for each in turns], reading if "stand-in" in name else network
            )
            for name in ways
        },
        **environment(describe_machine(), watch.load),
    }


def seconds(way: Way, paths: Sequence[Path]) -> float:
    """Return the seconds that a way takes for these files."""
    begun = time.perf_counter()
    way(paths)
    return time.perf_counter() - begun


def summary(rates: Sequence[float], bounds: Sequence[float]) -> dict[str, float]:
    """Return median and quartiles of the files per second, and the median share of the bound."""
    ordered = sorted(rates)
    quarter = len(ordered) // 4
    shares = [rate / bound for rate, bound in zip(rates, bounds, strict=True)]
    return {
        "median": statistics.median(ordered),
        "low": ordered[quarter],
        "high": ordered[-1 - quarter],
        "of_bound": statistics.median(shares),
    }


def fast_decode_cost(directory: Path, count: int) -> list[dict[str, Any]]:
    """Return the digits detector's mAP on large JPEGs, decoded at full and at reduced size."""
    model = directory / "digits.onnx"
    if not model.exists():
        weights = ROOT / "examples" / "digits" / "digits_d0.safetensors"
        export(None, model, ExportOptions(weights=str(weights), verify=False))
    costs = []
    with load(model) as detector:
        for side in SIDES:
            annotations = enlarged_scenes(directory / f"scenes-{count}", count, side)
            dataset = read_coco(annotations, annotations.parent)
            whole, fast = (
                measure(predict(detector, dataset, fast_decode=each), dataset)
                for each in (False, True)
            )
            cost = {"scenes": count, "side": side, "whole_ap": whole.ap, "fast_ap": fast.ap}
            costs.append(cost | asdict(difference(fast, whole)))
    return costs


def enlarged_scenes(directory: Path, count: int, side: int) -> Path:
    """Write scenes of digits as JPEGs, ``side`` pixels wide and high, unless they are there.

    Returns:
        The path of their annotations, beside the pictures.
    """
    sys.path.insert(0, str(ROOT / "examples" / "digits"))
    from scenes import write_scenes

    annotations = directory / str(side) / "annotations.json"
    if annotations.exists():
        return annotations
    annotations.parent.mkdir(parents=True, exist_ok=True)
    if not (directory / "annotations.json").exists():
        write_scenes("test", 0, count, directory)
    document = json.loads((directory / "annotations.json").read_text(encoding="utf-8"))
    for image in document["images"]:
        scale = side / image["width"]
        with Image.open(directory / "images" / image["file_name"]) as scene:
            large = scene.resize((side, side), Image.Resampling.LANCZOS)
        name = Path(image["file_name"]).with_suffix(".jpg").name
        image |= {"file_name": name, "width": side, "height": side}
        large.save(annotations.parent / name, quality=QUALITY)
    for each in document["annotations"]:
        each["bbox"] = [scale * value for value in each["bbox"]]
        each["area"] *= scale**2
    write_atomically(annotations, json.dumps(document))
    return annotations


if __name__ == "__main__":
    sys.exit(main())
