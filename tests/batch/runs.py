"""Sets of small pictures, runs over them without Ray, and what `Detector.detect` finds in them."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from effdet_deploy.batch import job
from effdet_deploy.batch.worker import Worker
from effdet_deploy.detection.detector import Detector
from effdet_deploy.errors import ImageError
from tests.onnx_models import write_tiny


def picture(random: np.random.Generator) -> bytes:
    """A small JPEG of random colors; the tiny detector's scores depend on its brightness."""
    height, width = random.integers(16, 48, 2)
    colors = random.integers(0, 256, (2, 2, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(colors).resize((int(width), int(height))).save(stream, "JPEG")
    return stream.getvalue()


def broken(whole: bytes, index: int) -> bytes:
    """Half of the picture ``whole``, an empty file, or text: ``index`` says which."""
    return (whole[: len(whole) // 2], b"", b"no picture")[index % 3]


def write_pictures(home: Path, count: int, every: int) -> Path:
    """Write ``count`` pictures in folders of 500; one in ``every`` is broken."""
    random = np.random.default_rng(19)
    for index in range(count):
        folder = home / f"{index // 500:03}"
        folder.mkdir(parents=True, exist_ok=True)
        whole = picture(random)
        content = broken(whole, index // every) if index % every == every // 2 else whole
        (folder / f"{index:06}.jpg").write_bytes(content)
    return home


def rows_of(output: Path | str) -> list[dict]:
    """All rows of a run, in the order of its parts."""
    return [
        row
        for part in sorted(Path(output).glob("*.parquet"))
        for row in pq.read_table(part).to_pylist()
    ]


def expected_rows(model: Path, sources: dict[str, object], **options) -> list[dict]:
    """What :meth:`Detector.detect` finds in each picture alone, as rows of the output."""
    with Detector.load(model, threads=1) as detector:
        return [_row(detector, key, source, options) for key, source in sources.items()]


def _row(detector: Detector, key: str, source: object, options: dict) -> dict:
    row = {"key": key, "width": None, "height": None, "error": None, "detections": None}
    try:
        (found,) = detector.detect([source], **options)
    except ImageError as error:
        return row | {"error": str(error)}
    encoded = io.BytesIO(source) if isinstance(source, bytes) else source
    with Image.open(encoded) as image:
        row |= {"width": image.width, "height": image.height}
    sides = ("x1", "y1", "x2", "y2")
    detections = [
        {
            "class_id": each["label"],
            "class_name": each["name"],
            "category_id": each["category_id"],
            "score": each["score"],
            **dict(zip(sides, each["box"], strict=True)),
        }
        for each in found.to_json()
    ]
    return row | {"detections": detections}


def inline(monkeypatch, before=lambda number, worker: None):
    """Let one worker in this process do all parts in Ray's place.

    ``before`` is called with the number of a part and the worker before each part.
    """

    def in_actors(task, numbers, actors, cpus, gpus):
        worker = Worker(task)
        for number in numbers:
            before(number, worker)
            row = worker({"part": np.array([number])})
            yield {name: value for name, (value,) in row.items()}

    monkeypatch.setattr(job, "connected", lambda address: contextlib.nullcontext())
    monkeypatch.setattr(job, "actors_here", lambda *_asked: 1)
    monkeypatch.setattr(job, "in_actors", in_actors)


def run(model, source, output, **options) -> job.Statistics:
    """Detect in all of ``source``, in parts of 10 pictures, without showing progress."""
    chosen = job.BatchOptions(**{"part": 10} | options)
    return job.detect_in_all(model, str(source), str(output), chosen, lambda *_done: None)


def tiny(home: Path, spec=None) -> Path:
    """Write the tiny detector into ``home`` and return its path."""
    return write_tiny(home / "tiny.onnx", spec)


def write_table(path: Path, rows_in_group: int, /, **columns) -> Path:
    """Write a Parquet file with the given columns."""
    pq.write_table(pa.table(columns), path, row_group_size=rows_in_group)
    return path
