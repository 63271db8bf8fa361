"""Files are written whole or not at all, and are read only where they belong.

``staging`` gives a temporary directory beside the target; its files replace the target at the end.
"""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from effdet_deploy.errors import ModelFileError, ResourceError, UsageError
from effdet_deploy.files import (
    base_name,
    deliver,
    require_writable_target,
    resolve_inside,
    sha256_bytes,
    sha256_file,
    sidecar_path,
    staging,
    why_no_file,
    write_atomically,
)

OLD, NEW = b"old content", b"new content"


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(OLD)
    return path


def entries(directory) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_hashes_are_sha256(tmp_path):
    content = os.urandom(3 << 20)
    path = tmp_path / "blob"
    path.write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    assert sha256_file(path) == sha256_bytes(content) == expected


def test_a_sidecar_is_named_in_full(tmp_path):
    assert sidecar_path(tmp_path / "model.onnx") == tmp_path / "model.onnx.json"


def test_a_write_replaces_the_old_file_and_leaves_nothing_else(target):
    write_atomically(target, NEW)
    assert target.read_bytes() == NEW
    assert entries(target.parent) == ["model.onnx"]


def test_text_is_written_as_utf8(tmp_path):
    write_atomically(tmp_path / "labels", "é\n")
    assert (tmp_path / "labels").read_bytes() == b"\xc3\xa9\n"


def test_a_failure_in_the_middle_keeps_the_old_file_and_leaves_nothing_else(target):
    def fail_half_way() -> None:
        with staging(target) as directory:
            (directory / "half").write_bytes(NEW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert target.read_bytes() == OLD
    assert entries(target.parent) == ["model.onnx"]


def test_the_staging_directory_is_on_the_file_system_of_the_target(target):
    """Only within one file system can a file be replaced in one step."""
    with staging(target) as directory:
        assert directory.parent == target.parent


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_a_resource_error(target, code):
    refused = pytest.raises(ResourceError, match=r"disk was full.*old file is untouched")
    with refused, staging(target):
        raise OSError(code, os.strerror(code))
    assert target.read_bytes() == OLD


def test_other_errors_of_the_system_stay_what_they_are(target):
    with pytest.raises(PermissionError), staging(target):
        raise PermissionError(errno.EACCES, "no")


def test_a_file_is_on_disk_before_it_is_visible(target, monkeypatch):
    """After a loss of power, the target is the old file or the new one, and never half of one."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(target.read_bytes()))
    with staging(target) as directory:
        staged = directory / "model.onnx"
        staged.write_bytes(NEW)
        deliver(staged, target)
    assert synced == [OLD]
    assert target.read_bytes() == NEW


def test_a_target_in_an_absent_directory_is_refused(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        require_writable_target(tmp_path / "absent" / "model.onnx")


def test_a_directory_as_target_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is a directory"):
        require_writable_target(tmp_path)


def test_a_device_as_target_is_refused():
    with pytest.raises(UsageError, match="is a device"):
        require_writable_target(Path("/dev/null"))


def test_a_directory_that_takes_no_files_is_refused(target, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="cannot be written to"):
        require_writable_target(target)


def test_asking_whether_a_target_is_writable_leaves_no_trace(target):
    require_writable_target(target)
    assert target.read_bytes() == OLD
    assert entries(target.parent) == ["model.onnx"]


def test_a_data_file_beside_the_model_is_resolved(tmp_path):
    assert resolve_inside(tmp_path, "weights.data") == tmp_path / "weights.data"


@pytest.mark.parametrize("location", ["../weights", "a/../../weights", "/etc/passwd"])
def test_a_data_file_elsewhere_is_refused(tmp_path, location):
    """A model from a stranger must not read files outside of its own folder."""
    with pytest.raises(ModelFileError, match="not a plain file"):
        resolve_inside(tmp_path, location)


def test_a_data_file_in_a_linked_folder_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "weights.data").touch()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelFileError, match="not a plain file"):
        resolve_inside(tmp_path / "model", "link/weights.data")


def test_a_model_may_stand_in_a_linked_folder(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert resolve_inside(tmp_path / "link", "weights.data").parent == tmp_path / "link"


@pytest.mark.parametrize("location", ["a\0b", "loop"])
def test_an_impossible_location_is_refused(tmp_path, location):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ModelFileError, match="not a plain file"):
        resolve_inside(tmp_path, location)


def test_a_link_as_data_file_is_refused(tmp_path):
    (tmp_path / "weights").symlink_to("/etc/passwd")
    with pytest.raises(ModelFileError):
        resolve_inside(tmp_path, "weights")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("d0.pth", "d0.pth"),
        ("weights/d0.pth", "d0.pth"),
        ("https://host/a/d0.pth?X-Amz-Signature=secret", "d0.pth"),
        ("pretrained", "pretrained"),
    ],
)
def test_a_name_that_is_shown_holds_no_folder_and_no_key(given, expected):
    assert base_name(given) == expected


def test_a_linked_target_is_written_and_the_link_stays(tmp_path):
    real = tmp_path / "elsewhere" / "real.json"
    real.parent.mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(real)
    require_writable_target(link)
    for content in ("first", "second"):
        write_atomically(link, content)
        assert link.is_symlink()
        assert real.read_text() == content
    assert entries(real.parent) == ["real.json"]
    assert entries(tmp_path) == ["elsewhere", "link.json"]


def test_a_file_staged_on_another_file_system_is_delivered_whole(target, monkeypatch):
    replace = Path.replace

    def across(self, other):
        if self.parent.parent != Path(other).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return replace(self, other)

    monkeypatch.setattr(Path, "replace", across)
    elsewhere = target.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "staged").write_bytes(NEW)
    deliver(elsewhere / "staged", target)
    assert target.read_bytes() == NEW
    assert entries(target.parent) == ["elsewhere", "model.onnx"]
    assert entries(elsewhere) == []


def test_dev_stdout_is_a_device_even_where_it_leads_to_a_file(tmp_path):
    # The shell holds that file open: if it were replaced, the shell's output would be lost.
    with pytest.raises(UsageError, match="is a device"):
        require_writable_target(Path("/dev/stdout"))


def test_text_that_utf_8_cannot_hold_is_escaped(tmp_path):
    write_atomically(tmp_path / "a.html", "caf\udce9")
    assert (tmp_path / "a.html").read_bytes() == rb"caf\udce9"


def test_a_path_that_is_not_a_file_is_described(tmp_path):
    (tmp_path / "link").symlink_to("absent")
    for path, said in (
        (tmp_path, "is a directory"),
        (tmp_path / "absent", "does not exist"),
        (tmp_path / "link", "is a link whose target does not exist"),
        (tmp_path / ("x" * 300), "cannot be accessed (File name too long)"),
        (Path("/dev/null"), "is not an ordinary file"),
        (Path(__file__), ""),
    ):
        assert why_no_file(path) == said


def test_staged_files_of_a_killed_process_are_removed_and_those_of_a_running_one_stay(target):
    code = (
        "import pathlib, sys, time; from effdet_deploy.files import staging\n"
        "with staging(pathlib.Path(sys.argv[1])) as directory:\n"
        "    (directory / 'half').write_text('x'); print(directory, flush=True); time.sleep(60)"
    )
    begun = [
        subprocess.Popen([sys.executable, "-c", code, target], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        dead, living = (Path(each.stdout.readline().strip()) for each in begun)
        begun[0].kill()
        begun[0].wait()
        assert (dead / "half").exists()
        require_writable_target(target)
        assert not dead.exists()
        assert (living / "half").read_text() == "x"
    finally:
        for each in begun:
            each.kill()
            each.communicate()
    assert target.read_bytes() == OLD


def test_nothing_waits_for_a_pipe_named_like_a_staging_directory(target):
    os.mkfifo(target.with_name(".effdet-0123456789abcdef.tmp"))
    require_writable_target(target)
    assert target.with_name(".effdet-0123456789abcdef.tmp").exists()
