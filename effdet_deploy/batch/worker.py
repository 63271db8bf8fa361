"""The code in a Ray actor: it loads the model once and detects in one part after another."""

from __future__ import annotations

import os
import pickle
import platform
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effdet_deploy import __version__
from effdet_deploy.batch.part import Rows
from effdet_deploy.batch.places import joined, write
from effdet_deploy.batch.plan import PlanReader
from effdet_deploy.batch.sources import read_pictures
from effdet_deploy.detection.detector import Detector
from effdet_deploy.errors import EffdetDeployError, InputError
from effdet_deploy.files import require_writable_target, sidecar_path, staging

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.batch.plan import Finished, Plan


@dataclass(frozen=True)
class Task:
    """The common task of all workers in a run.

    Attributes:
        output: the folder or address of the plan and the parts.
        plan: the plan of the run.
        model: the path of the model.
        shipped: if ``model`` is a path of another machine, a reference in Ray's object store to the
            model's files by name; otherwise None.
        loading: further arguments of :meth:`Detector.load`.
        threads: decoding threads, and threads of the runtime on a CPU.
        batch: the most pictures in one run; None for the model's largest batch.
    """

    output: str
    plan: Plan
    model: Path
    shipped: Any = None
    loading: dict[str, Any] = field(default_factory=dict)
    threads: int = 1
    batch: int | None = None


class Worker:
    """An actor, which Ray Data calls with the number of one part at a time.

    Errors of this package are returned in the row, since Ray would wrap them in its own.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._detector: Detector | None = None
        self._plan_reader: PlanReader | None = None

    def __call__(self, numbers: dict[str, Any]) -> dict[str, list[Any]]:
        """Detect in the pictures of a part, write the part, and return one row about it."""
        (number,) = numbers["part"]
        begun = time.monotonic()
        report: dict[str, Any] = {
            "part": int(number),
            "worker": f"{platform.node()}:{os.getpid()}",
            "pictures": 0,
            "failure": b"",
        }
        try:
            report["pictures"] = self._write_part(int(number)).pictures
        except EffdetDeployError as error:
            report["failure"] = pickle.dumps(error)
        except OSError as error:
            said = InputError(
                f"A worker could not write or read: {error}.", "Check the folder or address."
            )
            report["failure"] = pickle.dumps(said)
        report["seconds"] = time.monotonic() - begun
        return {name: [value] for name, value in report.items()}

    def _write_part(self, number: int) -> Finished:
        task = self._task
        if self._detector is None or self._plan_reader is None:
            self._detector = _load(task)
            self._plan_reader = PlanReader(task.output, task.plan)
        keys: list[str] = []

        def pictures() -> Iterator[Any]:
            for key, picture in read_pictures(listing, task.plan.settings.key):
                keys.append(key)
                yield picture

        listing = self._plan_reader.part(number)
        rows = Rows()
        for outcome in self._detector.stream(
            pictures(),
            score_threshold=task.plan.settings.score_threshold,
            decoders=task.threads,
            batch=task.batch,
            fast_decode=task.plan.settings.fast_decode,
        ):
            if outcome.error is None:
                rows.add(keys[outcome.index], outcome.size, outcome.detections)
            else:
                rows.add_error(keys[outcome.index], str(outcome.error))
        about = {
            "plan": task.plan.digest,
            "part": number,
            "model": task.plan.settings.model,
            "score_threshold": task.plan.settings.score_threshold,
            "fast_decode": task.plan.settings.fast_decode,
            "effdet-deploy": __version__,
        }
        write(joined(task.output, task.plan.part_name(number)), rows.encoded(about))
        return rows.finished()


def _load(task: Task) -> Detector:
    """Load the model from its path, or from files in Ray's object store."""
    arguments = {"threads": task.threads, **task.loading}
    if task.shipped is None:
        return Detector.load(task.model, **arguments)
    import ray

    home = Path(tempfile.gettempdir(), "model")
    # Files of killed workers are removed; our own are removed when the runtime has read them.
    require_writable_target(home)
    with staging(home) as directory:
        for name, content in ray.get(task.shipped).items():
            (directory / name).write_bytes(content)
        return Detector.load(directory / task.model.name, **arguments)


def shipped(model: Path, spec: DetectorSpec) -> Any:
    """Put a model and the files that belong to it into Ray's object store; see :class:`Task`."""
    import ray

    beside = (model.with_name(each.name) for each in spec.external_files)
    paths = (model, sidecar_path(model), *beside)
    return ray.put({each.name: each.read_bytes() for each in paths if each.is_file()})
