"""The parent's side of the builder's process: start it, listen to it, stop it, report its end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import effdet_deploy
from effdet_deploy.errors import DeviceError, EffdetDeployWarning
from effdet_deploy.exporters.tensorrt.build_errors import crash_error
from effdet_deploy.exporters.tensorrt.messages import Request, hear, say
from effdet_deploy.progress import silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effdet_deploy.artifact.spec import EngineSpec
    from effdet_deploy.exporters.build_options import BuildOptions
    from effdet_deploy.progress import Progress

STOP_GRACE_S = 60.0
"""Seconds that a builder may take to finish its current step after it was told to stop."""
_WORKER = "effdet_deploy.exporters.tensorrt.worker"


def require_builder(options: BuildOptions) -> EngineSpec:
    """Start the builder once, in a process of its own, and return its version and GPU.

    Raises:
        MissingPackageError: the backend is not installed.
        DeviceError: its libraries do not load, or it needs a GPU and finds none.
    """
    builder = run_builder(Request(options), silent)
    require_gpu_to_refit(options, has_gpu=bool(builder.gpu))
    return builder


def require_gpu_to_refit(options: BuildOptions, *, has_gpu: bool) -> None:
    """Check that a refittable engine can be built, which needs a GPU.

    Raises:
        DeviceError: TensorRT-RTX is to build a refittable engine, and there is no GPU.
    """
    if (options.refit or options.strip_plan) and not has_gpu:
        raise DeviceError(
            "TensorRT-RTX needs a GPU to build an engine that can be refitted, but finds none.",
            "Leave --refit and --strip-plan out, or build on a machine with a GPU.",
        )


def run_builder(request: Request, progress: Progress, grace: float = STOP_GRACE_S) -> EngineSpec:
    """Handle ``request`` in a process of its own.

    Returns:
        The backend, release and GPU of the builder.

    Raises:
        MissingError: the package or the GPU is missing, or memory ran out.
        ModelFileError: TensorRT refuses the model, or crashed on it.
        OSError: the engine could not be written.
        KeyboardInterrupt: the user pressed Ctrl-C, and the builder has stopped.
    """
    said: dict[str, Any] = {}
    with tempfile.TemporaryFile() as errors, _started(errors) as (process, words, answers):
        try:
            with contextlib.suppress(BrokenPipeError):  # it ended at once; see its exit code
                say(words, request)
            while (message := hear(answers)) is not None:
                kind, what = message
                if kind == "progress":
                    progress(what)
                elif kind == "warning":
                    warnings.warn(what, EffdetDeployWarning, stacklevel=2)
                else:
                    said[kind] = what
        except BaseException:
            _stop(process, words, grace)
            raise
        process.wait()
        if "failed" in said:
            raise said["failed"]
        if "done" not in said:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines()
            raise crash_error(request, process.returncode, lines[-1][:300] if lines else "")
    builder: EngineSpec = said["ready"]
    return builder


@contextlib.contextmanager
def _started(
    errors: IO[bytes],
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]]:
    """Start the process, yield it with its stdin and stdout, and make sure that it ends.

    The builder's process has a session of its own, so that Ctrl-C reaches only its parent, which
    then stops it.
    """
    package_home = str(Path(effdet_deploy.__file__).parents[1])
    paths = [package_home, os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        # -P: a folder named tensorrt in the current directory must not be imported.
        [sys.executable, "-P", "-m", _WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the builder's process has no pipes")
    try:
        yield process, process.stdin, process.stdout
    finally:
        if process.poll() is None:
            process.kill()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                stream.close()
        process.wait()


def _stop(process: subprocess.Popen[bytes], words: IO[bytes], grace: float) -> None:
    """Let the builder stop through its progress monitor; after ``grace`` seconds, kill it.

    The builder stops when its stdin ends, which also happens when its parent is gone.
    """
    with contextlib.suppress(OSError):
        words.close()
    killer = threading.Timer(grace, process.kill)
    killer.daemon = True
    killer.start()
    try:
        process.wait()
    except KeyboardInterrupt:
        process.kill()
    finally:
        killer.cancel()
