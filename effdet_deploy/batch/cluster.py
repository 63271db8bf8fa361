"""Ray for a run: started on this machine until the run ends, or an existing cluster.

Pictures never go through Ray's object store: workers read and write them themselves.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effdet_deploy.errors import MissingError, ResourceError, require_package
from effdet_deploy.files import require_writable_target, staging

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effdet_deploy.batch.worker import Task

_OBJECT_STORE_BYTES = 100 << 20
"""Size in bytes of Ray's object store on this machine, which holds part numbers and reports."""
_RETRIES = 8
"""How often a part is repeated if its worker is lost. Without a limit, a picture that kills every
process that reads it would keep a run busy forever."""
_LONGEST_ANSWER = 10.0
"""The most seconds that the head of a cluster may take to accept a connection."""
_LONGEST_HOME = 13
"""The most characters of the path of Ray's folder: paths of its sockets may have 107 in all."""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    # Ray's native code prints hints for Ray's own developers as errors.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # A worker that was given no GPU must not see any.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Start Ray on this machine, or join the cluster at ``address``; leave it at the end.

    No process and no file stays behind, and no statistics are sent. If the caller has already
    started Ray, that Ray is used and keeps running.

    Raises:
        MissingError: Ray is not installed or does not start, or there is no cluster.
    """
    require_package("ray", "detecting in many pictures", "batch")
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    with contextlib.ExitStack() as stack:
        _require_listener(address)
        options: dict[str, Any] = {"address": address}
        if address is None:
            home = Path(tempfile.gettempdir())
            home = home if len(str(home)) <= _LONGEST_HOME else Path("/tmp")  # noqa: S108
            require_writable_target(home / "ray")
            options = {
                "address": "local",
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
                "_temp_dir": str(stack.enter_context(staging(home / "ray"))),
            }
        stack.callback(ray.shutdown)
        _start(options)
        yield


def _require_listener(address: str | None) -> None:
    """Check that something answers at HOST:PORT: Ray would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _LONGEST_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise MissingError(
            f"There is no Ray cluster at '{address}': {error}.",
            "Name the address that 'ray start --head' printed, or leave --address out.",
        ) from error


def _start(options: dict[str, Any]) -> None:
    import ray

    for last in (False, False, True):
        try:
            with _own_signals(), _native_silence():
                ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
        # A bare Exception means that a process of Ray took more than 15 seconds to start, as on a
        # busy machine; the next attempt may succeed.
        except Exception as error:
            if not last and options["address"] == "local":
                continue
            what = "start" if options["address"] == "local" else f"reach '{options['address']}'"
            raise MissingError(
                f"Ray cannot {what}: {' '.join(str(error).split())}.",
                "Close other programs, or check the cluster with: ray status.",
            ) from error
        return


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Restore our signal handlers: Ray installs its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextlib.contextmanager
def _native_silence() -> Iterator[None]:
    """Discard what native code writes to stderr: Ray prints its log level."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def actors_here(cpus: int, gpus: float, most: int) -> int:
    """Return how many actors the cluster has room for, at most ``most``.

    Raises:
        MissingError: it has no room for one actor.
    """
    import ray

    there = ray.cluster_resources()
    room = int(there.get("GPU", 0) / gpus) if gpus else int(there.get("CPU", 0) / cpus)
    if room < 1:
        wanted = f"{gpus:g} GPUs" if gpus else f"{cpus} processors"
        raise MissingError(
            f"Ray has {there.get('GPU', 0):g} GPUs and {there.get('CPU', 0):g} processors, but an "
            f"actor needs {wanted}.",
            "Request less with --gpus-per-actor or --cpus-per-actor.",
        )
    return min(room, most)


def in_actors(
    task: Task, numbers: list[int], actors: int, cpus: int, gpus: float
) -> Iterator[dict[str, Any]]:
    """Make actors write the parts ``numbers``, and yield a report whenever a part is written.

    Raises:
        ResourceError: Ray gave a part up because its workers died.
    """
    import ray
    import ray.data
    from ray.exceptions import RayError

    from effdet_deploy.batch.worker import Worker

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A part may take longer than Ray waits for a sign of progress.
    context.execution_no_progress_timeout_s = -1
    items = [{"part": number} for number in numbers]
    # A block holds one part, because Ray distributes, retries and reports blocks.
    blocks = ray.data.from_items(items, override_num_blocks=len(items))
    with warnings.catch_warnings():
        # Ray 2.64 will not accept max_task_retries; effdet-deploy[batch] requires an older release.
        warnings.simplefilter("ignore")
        parts = blocks.map_batches(
            Worker,
            fn_constructor_args=(task,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=cpus,
            num_gpus=gpus or None,
            max_task_retries=_RETRIES,
        )
    left = set(numbers)
    try:
        for report in parts.iter_rows():
            left.discard(report["part"])
            yield report
    except RayError as error:
        said = " ".join(str(error).split()).rstrip(".")
        raise ResourceError(
            f"Ray ended the run: {said}. The first part that is missing is "
            f"'{task.plan.part_name(min(left))}'.",
            "Run the command again with --resume, and with fewer --actors if the memory ran out. "
            "If one picture kills every process that reads it, remove this picture.",
        ) from error
