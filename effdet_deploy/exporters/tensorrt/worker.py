"""The builder's own process: ``python -m effdet_deploy.exporters.tensorrt.worker``.

A builder is native code that takes minutes and much memory, and may crash. This process reads a
request from stdin, reports on stdout, and stops when its stdin ends: then its parent wants it to
stop, or is gone.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from effdet_deploy.artifact.spec import EngineSpec
from effdet_deploy.errors import EffdetDeployError
from effdet_deploy.exporters.tensorrt import definition, timing_cache
from effdet_deploy.exporters.tensorrt.build_errors import build_error, import_error
from effdet_deploy.exporters.tensorrt.messages import hear, say
from effdet_deploy.preflight import require_fit, target_of
from effdet_deploy.runtimes.gpu import list_gpus
from effdet_deploy.runtimes.tensorrt.library import create_log, import_library

if TYPE_CHECKING:
    from effdet_deploy.exporters.tensorrt.messages import Request

_REPORT_EVERY_S = 0.1


class Channel:
    """The connection to the parent; any of the builder's threads may send messages.

    A message is a kind and a value: an EngineSpec for ``ready``, an exception for ``failed``, a
    text for ``progress`` and ``warning``.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self._last_progress = 0.0

    def send(
        self,
        kind: Literal["ready", "progress", "warning", "failed", "done"],
        what: object = None,
    ) -> None:
        """Send a message; a parent that is gone is noticed by the thread that reads from it."""
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            say(self._stream, (kind, what))

    def report(self, phase: str, step: int, steps: int) -> None:
        """Report progress, at a rate that people can read."""
        now = time.monotonic()
        if now - self._last_progress >= _REPORT_EVERY_S:
            self._last_progress = now
            of_all = f" {step}/{steps}" if steps > 1 else ""
            named = f"{phase[:1].lower()}{phase[1:]}{of_all}"
            self.send("progress", f"building the engine: {named}, {now - self._begun:.0f} s")


def main() -> int:
    """Handle one request and return the exit code, which only says whether it succeeded."""
    # stdout is for messages only; what native code prints there goes to stderr.
    channel = Channel(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    request: Request = hear(sys.stdin.buffer)
    stop = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.buffer.read(1)
        stop.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    failure: Exception
    try:
        _serve(request, channel, stop)
    except definition.BuildFailedError as error:
        failure = build_error(request, error.stage, error.messages)
    except ImportError as error:
        failure = import_error(request, str(error))
    except MemoryError:
        failure = build_error(request, "build", ["out of memory"])
    except OSError as error:
        file = error.filename or request.plan
        failure = OSError(error.errno or 0, error.strerror or str(error), str(file))
    except EffdetDeployError as error:
        failure = error
    else:
        channel.send("done")
        return 0
    channel.send("failed", failure)
    return 1


def _serve(request: Request, channel: Channel, stop: threading.Event) -> None:
    """Check, parse, build and write, in the order that NVIDIA's libraries require."""
    options = request.options
    trt = import_library(options.backend)
    log = create_log(trt)
    builder = definition.create_builder(trt, log)
    gpus = list_gpus()
    gpu, capability = (gpus[0].name, gpus[0].compute_capability) if gpus else ("", "")
    version = trt.__version__
    ready = EngineSpec(options.backend, version, gpu, capability, options.traits())
    channel.send("ready", ready)
    if not request.onnx:
        return
    if (target := target_of(options.backend, version)) is not None:
        channel.report("checking the ONNX file", 0, 0)
        # This check names all nodes that TensorRT refuses; the parser would name only the first.
        for finding in require_fit(Path(request.onnx), target):
            channel.send("warning", str(finding))
    channel.report("parsing the ONNX file", 0, 0)
    network = definition.parse(trt, builder, log, request.onnx)
    config = definition.configure(trt, builder, options)
    definition.add_profile(builder, config, network, request.batch)
    cache, origin = options.timing_cache, timing_cache.Origin(options.backend, version, gpu)
    if cache is not None and (reason := timing_cache.attach(config, cache, origin, log)):
        text = f"The timing cache '{cache}' is not used and will be replaced: {reason}."
        channel.send("warning", text)
    # In some releases the configuration does not keep the monitor alive.
    monitor = definition.create_monitor(trt, channel.report, stop.is_set)
    config.progress_monitor = monitor
    plan = definition.build(builder, network, config, log)
    Path(request.plan).write_bytes(plan)
    if cache is None:
        return
    try:
        timing_cache.save(config, cache, origin)
    except (OSError, EffdetDeployError) as error:
        channel.send("warning", f"The timing cache '{cache}' was not saved: {error}.")


if __name__ == "__main__":
    sys.exit(main())
