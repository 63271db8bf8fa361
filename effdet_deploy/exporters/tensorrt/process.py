"""The parent's side of the builder's process: start it, listen, stop it, say how it ended."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING

import effdet_deploy
from effdet_deploy.artifact.spec import EngineSpec
from effdet_deploy.errors import EffdetDeployWarning
from effdet_deploy.exporters.tensorrt.failures import build_error, crash_error
from effdet_deploy.exporters.tensorrt.messages import CANCEL, Event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effdet_deploy.exporters.tensorrt.messages import Request
    from effdet_deploy.progress import Progress

STOP_GRACE_S = 60.0
"""How long a builder that was told to stop may finish the step it is in."""
_WORKER = "effdet_deploy.exporters.tensorrt.worker"


def run_builder(request: Request, progress: Progress, grace: float = STOP_GRACE_S) -> EngineSpec:
    """Serve ``request`` in a process of its own.

    Returns:
        What built it: backend, release and GPU.

    Raises:
        MissingError: the package or the GPU is not there, or the memory ran out.
        ModelFileError: TensorRT does not take the model, or crashed on it.
        OSError: the plan could not be written.
        KeyboardInterrupt: the user's, after the builder has stopped.
    """
    with tempfile.TemporaryFile() as errors, _started(errors) as process:
        listener = _Listener(request, progress)
        try:
            _converse(process, request, listener)
        except BaseException:
            _stop(process, grace)
            raise
        process.wait()
        if listener.failed is not None:
            raise build_error(request, listener.failed.fields)
        if not listener.done:
            raise crash_error(request, process.returncode, _last_line(errors))
        return listener.builder


class _Listener:
    """What the process has told so far."""

    def __init__(self, request: Request, progress: Progress) -> None:
        self.builder = EngineSpec(request.options.backend, "")
        self.done = False
        self.failed: Event | None = None
        self._request = request
        self._progress = progress
        self._start = time.monotonic()

    def hear(self, event: Event) -> None:
        """Take one event."""
        if event.kind == "progress":
            self._progress(self._stage(**event.fields))
        elif event.kind == "warning":
            warnings.warn(event.fields["text"], EffdetDeployWarning, stacklevel=4)
        elif event.kind == "failed":
            self.failed = event
        elif event.kind == "done":
            self.done = True
        else:
            self.builder = EngineSpec(
                backend=self._request.options.backend,
                traits=self._request.options.traits(),
                **event.fields,
            )

    def _stage(self, phase: str, step: int, steps: int) -> str:
        seconds = time.monotonic() - self._start
        of_all = f" {step}/{steps}" if steps > 1 else ""
        return f"building the engine: {phase[:1].lower()}{phase[1:]}{of_all}, {seconds:.0f} s"


@contextlib.contextmanager
def _started(errors: IO[bytes]) -> Iterator[subprocess.Popen[str]]:
    """Start the process in a session of its own: Ctrl-C is for us, who then ask it to stop."""
    package_home = str(Path(effdet_deploy.__file__).parents[1])
    paths = [package_home, os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        # -P: a folder named tensorrt in the current directory is not TensorRT.
        [sys.executable, "-P", "-m", _WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        encoding="utf-8",
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        process.wait()


def _converse(process: subprocess.Popen[str], request: Request, listener: _Listener) -> None:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the builder's process has no pipes")
    with contextlib.suppress(BrokenPipeError):  # it died at once: its exit code says how
        process.stdin.write(request.to_line())
        process.stdin.flush()
    for line in process.stdout:
        listener.hear(Event.from_line(line))


def _stop(process: subprocess.Popen[str], grace: float) -> None:
    """Ask the builder to stop through its progress monitor; after ``grace`` seconds, end it."""
    with contextlib.suppress(BrokenPipeError, OSError):
        if process.stdin is not None:
            process.stdin.write(CANCEL)
            process.stdin.flush()
    killer = threading.Timer(grace, process.kill)
    killer.daemon = True
    killer.start()
    try:
        process.wait()
    except KeyboardInterrupt:
        process.kill()
    finally:
        killer.cancel()


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
