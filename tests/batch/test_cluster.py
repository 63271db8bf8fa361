"""On a real Ray cluster: workers and the driver are killed, and every picture still has one row."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from effdet_deploy.batch import cluster
from effdet_deploy.batch.job import BatchOptions, detect_in_all
from effdet_deploy.errors import MissingError
from tests.batch.runs import expected_rows, rows_of, tiny, write_pictures

WORKER = b"ray::MapWorker"
_PATIENCE = 900


def processes() -> dict[int, tuple[int, bytes]]:
    """The parent and the command line of every process."""
    found = {}
    for each in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(each.name)] = parent, (each / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
    return found


def below(ancestor: int) -> dict[int, bytes]:
    """The command lines of the processes that ``ancestor`` started, and of those they started."""
    everyone = processes()
    family = {ancestor}
    while grown := {each for each, (parent, _) in everyone.items() if parent in family} - family:
        family |= grown
    return {each: everyone[each][1] for each in family - {ancestor}}


def kill_worker(ancestor: int) -> bool:
    """Kill one worker that ``ancestor`` started; return whether there was one."""
    workers = [each for each, line in below(ancestor).items() if line.startswith(WORKER)]
    if workers:
        os.kill(workers[0], signal.SIGKILL)
    return bool(workers)


@pytest.fixture
def short_tmp(monkeypatch, tmp_path_factory):
    """A temporary folder of our own, whose name leaves room for the names of Ray's sockets."""
    folder = Path(f"/tmp/b{os.getpid()}")
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    # Every process of Ray imports jsonschema, which imports rfc3987_syntax where that is installed
    # (by `make dist`). That import takes two seconds of processor time, and Ray waits 15
    # seconds for each of its processes.
    absent = tmp_path_factory.mktemp("absent")
    (absent / "rfc3987_syntax.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(absent) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    monkeypatch.setitem(sys.modules, "rfc3987_syntax", None)
    yield folder
    shutil.rmtree(folder)


def test_an_address_where_nothing_listens_is_refused_without_delay():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(MissingError, match=f"no Ray cluster at '{address}'"),
            cluster.connected(address),
        ):
            pytest.fail("there is no cluster")


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of workers in /proc")
def test_a_killed_worker_and_lost_files_change_no_row_and_nothing_stays_behind(tmp_path, short_tmp):
    model = tiny(tmp_path)
    pictures = write_pictures(tmp_path / "pictures", 60, every=12)
    out = tmp_path / "out"
    killed = []

    def progress(done: int, _total: int) -> None:
        if done and not killed:
            killed.append(kill_worker(os.getpid()))

    def run(**options):
        chosen = BatchOptions(part=6, actors=1, **options)
        return detect_in_all(model, str(pictures), str(out), chosen, progress)

    with cluster.connected(None):
        first = run()
        assert killed == [True]
        parts = sorted(out.glob("*.parquet"))
        parts[3].unlink()
        parts[7].write_bytes(parts[7].read_bytes()[:-1])
        again = run(resume=True)
    assert (first.pictures, first.errors, len(first.workers)) == (60, 5, 2)
    assert (again.pictures, again.errors, again.done_now) == (60, 5, 12)
    sources = {str(each): each for each in sorted(pictures.rglob("*.jpg"))}
    assert rows_of(out) == expected_rows(model, sources)
    assert {each.name for each in out.iterdir()} == {"_plan", *(each.name for each in parts)}
    assert not list(short_tmp.iterdir())
    assert not [line for line in below(os.getpid()).values() if b"ray" in line]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of workers in /proc")
def test_killed_workers_and_a_killed_driver_on_two_nodes_lose_and_double_no_row(
    tmp_path, short_tmp
):
    count = int(os.environ.get("EFFDET_BATCH_PICTURES", "20000"))
    model = tiny(tmp_path)
    pictures = write_pictures(tmp_path / "pictures", count, every=100)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "effdet_deploy", "batch", model, pictures, out, "--resume"]
    command += ["--part", str(max(1, count // 100)), "--json", tmp_path / "result.json"]
    for name, value in {**cluster.ENVIRONMENT, "RAY_TMPDIR": str(short_tmp)}.items():
        os.environ.setdefault(name, value)
    (short_tmp / "ray").mkdir()
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    head = node | free_ports() | {"temp_dir": str(short_tmp)}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes.add_node(**node | free_ports())
        nodes.wait_for_nodes()
        command += ["--address", nodes.address]
        begun = time.monotonic()
        driver = start(command)
        for done in (10, 25, 40):
            wait_for(out, done, driver)
            assert kill_worker(os.getpid())
        wait_for(out, 55, driver)
        driver.kill()
        driver.wait()
        left = 100 - len(list(out.glob("*.parquet")))
        assert left
        driver = start(command)
        assert driver.wait(_PATIENCE) == 0
        seconds = time.monotonic() - begun
    finally:
        nodes.shutdown()
    rows = rows_of(out)
    sys.stdout.write(f"{count} pictures, 3 workers and 1 driver killed: {seconds:.0f} s\n")
    sources = {str(each): each for each in sorted(pictures.rglob("*.jpg"))}
    assert set(Counter(each["key"] for each in rows).values()) == {1}
    assert rows == expected_rows(model, sources)
    assert sum(each["error"] is not None for each in rows) == count // 100
    assert not [each for each in out.iterdir() if each.name.startswith(".")]


def free_ports() -> dict[str, int]:
    """Free ports for a node's processes; the node would wait 15 seconds if they chose their own."""
    names = ("metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in names]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}


def start(command: list[object]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*map(str, command)], stdout=sys.stdout, stderr=sys.stderr)


def wait_for(out: Path, parts: int, driver: subprocess.Popen[bytes]) -> None:
    """Wait until ``out`` holds this many parts; the driver must live until then."""
    until = time.monotonic() + _PATIENCE
    while len(list(out.glob("*.parquet"))) < parts:
        assert driver.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
