"""A full disk, and two writers to one target."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from effdet_deploy.errors import ResourceError
from effdet_deploy.files import write_atomically

OLD = b"the file that was there"
# The system limits the size of each file that the process writes, so the error is a real one.
WRITE_PAST_A_LIMIT = """
import resource, signal, sys
from pathlib import Path
from effdet_deploy.errors import ResourceError
from effdet_deploy.files import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_atomically(Path(sys.argv[1]), b"x" * 100_000)
except ResourceError as error:
    sys.exit(error.exit_code)
"""


def test_a_full_disk_keeps_the_old_file_and_leaves_no_debris(tmp_path):
    target = tmp_path / "model.onnx"
    target.write_bytes(OLD)
    run = subprocess.run(
        [sys.executable, "-c", WRITE_PAST_A_LIMIT, str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (ResourceError.exit_code, "")
    assert target.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [target]


EXPORT_PAST_A_LIMIT = """
import resource, signal, sys
from effdet_deploy.cli import export_main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
sys.exit(export_main(sys.argv[1:]))
"""
"""Writing a large file fails at the limit, as it fails on a full disk."""


@pytest.mark.parametrize("suffix", [".onnx", ".torchscript"])
def test_an_export_to_a_full_disk_keeps_the_old_file(tmp_path, suffix):
    target = tmp_path / f"model{suffix}"
    target.write_bytes(OLD)
    options = ["--variant", "lite0", "--weights", "random", "--image-size", "128", "--no-verify"]
    run = subprocess.run(
        [sys.executable, "-c", EXPORT_PAST_A_LIMIT, *options, str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == ResourceError.exit_code, run.stderr
    assert "Traceback" not in run.stderr
    assert target.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [target]


def test_many_writers_to_one_target_leave_one_complete_file(tmp_path):
    target = tmp_path / "model.onnx"
    contents = [bytes([number]) * (1 << 18) for number in range(8)]
    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(lambda content: write_atomically(target, content), contents * 4))
    assert target.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("attempt", range(3))
def test_a_reader_sees_only_complete_files(tmp_path, attempt):
    target = tmp_path / "model.onnx"
    contents = [bytes([number]) * (1 << 18) for number in range(4)]
    write_atomically(target, contents[0])
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(
            lambda: [write_atomically(target, content) for content in contents * 8]
        )
        while not writing.done():
            assert target.read_bytes() in contents
        writing.result()
