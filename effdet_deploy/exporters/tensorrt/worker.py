"""The builder's own process: ``python -m effdet_deploy.exporters.tensorrt.worker``.

A builder is native code that takes minutes and much memory, and may crash. It reads a request from
stdin, writes events to stdout, and stops when it is told to or when its parent is gone.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from effdet_deploy.errors import EffdetDeployError, ModelFileError
from effdet_deploy.exporters.tensorrt import definition as network
from effdet_deploy.exporters.tensorrt import timing_cache
from effdet_deploy.exporters.tensorrt.messages import Event, Request
from effdet_deploy.preflight import require_fit, target_of
from effdet_deploy.runtimes.gpu import list_gpus
from effdet_deploy.runtimes.tensorrt.library import create_log, import_library

if TYPE_CHECKING:
    from effdet_deploy.exporters.tensorrt.messages import EventKind

_REPORT_EVERY_S = 0.1


class Channel:
    """The line to the parent; events may come from any of the builder's threads."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._last_progress = 0.0

    def send(self, kind: EventKind, **fields: Any) -> None:
        """Write one event; a parent that is gone is found out by whoever reads from it."""
        with self._lock:
            try:
                self._stream.write(Event(kind, fields).to_line())
                self._stream.flush()
            except (BrokenPipeError, ValueError):
                pass

    def report(self, phase: str, step: int, steps: int) -> None:
        """Report progress, but not more often than anybody can read."""
        now = time.monotonic()
        if now - self._last_progress >= _REPORT_EVERY_S:
            self._last_progress = now
            self.send("progress", phase=phase, step=step, steps=steps)


def main() -> int:
    """Serve one request; returns the exit code, which only says whether it went well."""
    channel = Channel(_private_stdout())
    request = Request.from_line(sys.stdin.readline())
    stop = threading.Event()
    threading.Thread(target=_watch_parent, args=(stop,), daemon=True).start()
    try:
        _serve(request, channel, stop)
    except network.BuildFailedError as error:
        channel.send("failed", stage=error.stage, messages=error.messages)
    except ModelFileError as error:
        channel.send("failed", stage="check", messages=[error.cause, error.remedy])
    except ImportError as error:
        channel.send("failed", stage="import", messages=[str(error)])
    except MemoryError:
        channel.send("failed", stage="build", messages=["out of memory"])
    except OSError as error:
        file = error.filename or request.plan
        said = error.strerror or str(error)
        channel.send("failed", stage="file", messages=[said], errno=error.errno, file=str(file))
    else:
        channel.send("done")
        return 0
    return 1


def _private_stdout() -> TextIO:
    """Keep stdout for events, and send what native code prints there to stderr."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def _watch_parent(stop: threading.Event) -> None:
    """Wait for the word to stop, or for the end of the parent, which closes our stdin."""
    sys.stdin.readline()
    stop.set()


def _serve(request: Request, channel: Channel, stop: threading.Event) -> None:
    options = request.options
    trt = import_library(options.backend)
    log = create_log(trt)
    builder = network.create_builder(trt, log)
    gpus = list_gpus()
    name, capability = (gpus[0].name, gpus[0].compute_capability) if gpus else ("", "")
    channel.send("ready", version=trt.__version__, gpu=name, compute_capability=capability)
    if not request.onnx:
        return
    _check(request, trt.__version__, channel)
    channel.report("parsing the ONNX file", 0, 0)
    parsed = network.parse(trt, builder, log, request.onnx)
    config = network.configure(trt, builder, options)
    network.add_profile(builder, config, parsed, request.batch)
    origin = timing_cache.Origin(options.backend, trt.__version__, name)
    if options.timing_cache is not None:
        reason = timing_cache.attach(config, options.timing_cache, origin, log)
        if reason:
            path = options.timing_cache
            text = f"The timing cache '{path}' is discarded and made anew: {reason}."
            channel.send("warning", text=text)
    # The configuration does not keep the monitor alive in every release.
    monitor = network.create_monitor(trt, channel.report, stop.is_set)
    config.progress_monitor = monitor
    plan = network.build(builder, parsed, config, log)
    Path(request.plan).write_bytes(plan)
    _save_timings(config, request, origin, channel)


def _check(request: Request, version: str, channel: Channel) -> None:
    """Say what this release refuses or changes, with all nodes, before it sees the file.

    Raises:
        ModelFileError: it refuses the file.
    """
    target = target_of(request.options.backend, version)
    if target is None:
        return
    channel.report("checking the ONNX file", 0, 0)
    for each in require_fit(Path(request.onnx), target):
        channel.send("warning", text=str(each))


def _save_timings(
    config: Any, request: Request, origin: timing_cache.Origin, channel: Channel
) -> None:
    path = request.options.timing_cache
    if path is None:
        return
    try:
        timing_cache.save(config, path, origin)
    except (OSError, EffdetDeployError) as error:
        channel.send("warning", text=f"The timing cache '{path}' was not saved: {error}.")


if __name__ == "__main__":
    sys.exit(main())
