"""Files as they are handled everywhere here: atomic writes, hashes, safe paths."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from effdet_deploy.errors import (
    DataError,
    ModelFileError,
    ResourceError,
    UsageError,
    require_package,
)

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CHUNK = 1 << 20
_LONGEST_NAME = 255
"""Bytes in a file's name, on every file system that is in use."""
_SCRATCH = ".effdet-{}.tmp"
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_json_object(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """Return the JSON object in ``path``.

    Args:
        path: a file in UTF-8.
        what: the file's part in the user's command, such as ``The config file``.
        remedy: what to do if it is something else.

    Raises:
        DataError: unreadable, or no JSON object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    # Of a ValueError: no UTF-8, no JSON, an integer of thousands of digits.
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{what} '{path}' cannot be read: {error}.", remedy) from error
    if not isinstance(document, dict):
        raise DataError(f"{what} '{path}' does not hold a JSON object.", remedy)
    return document


def why_no_file(path: Path) -> str:
    """Return how a sentence goes on that begins with a path which is no file; empty for a file."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a link to nothing" if path.is_symlink() else "does not exist"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return f"cannot be looked at ({reason})"
    if stat.S_ISREG(mode):
        return ""
    return "is a directory" if stat.S_ISDIR(mode) else "is not an ordinary file"


def parse_yaml(text: str, doing: str) -> Any:
    """Read YAML of which every scalar stays text: a class that is called 'no' is no boolean.

    Nothing is made but text, lists and dicts, whatever a tag asks for.

    Args:
        text: the document.
        doing: what it is read for, for the error where PyYAML is not installed.

    Raises:
        ValueError: it is no YAML; said in one line.
        MissingPackageError: PyYAML is not installed.
    """
    require_package("yaml", doing, "export")
    import yaml

    try:
        return yaml.load(text, yaml.BaseLoader)  # noqa: S506
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return what to call each file: its name; where names repeat its path, or a number with it."""
    names = [each.name for each in paths]
    shown = [
        name if names.count(name) == 1 else str(path)
        for name, path in zip(names, paths, strict=True)
    ]
    return [
        each if shown.count(each) == 1 else f"{each} ({1 + shown[:index].count(each)})"
        for index, each in enumerate(shown)
    ]


def sidecar_path(artifact: Path) -> Path:
    """Return where the sidecar of ``artifact`` stands: ``model.onnx`` → ``model.onnx.json``."""
    return artifact.with_name(artifact.name + ".json")


def require_writable_target(target: Path) -> None:
    """Check that ``target`` can be written, before any work is done for it.

    A link is followed: what it names is written. What killed processes of ours left beside it is
    removed.

    Raises:
        UsageError: the directory is absent or read-only, or ``target`` is a directory or device.
    """
    # /dev/stdout may well lead to a file, which the shell has open and would go on to write.
    is_device = target.absolute().is_relative_to("/dev")
    target = _followed(target)
    directory = target.parent
    if not directory.is_dir():
        raise UsageError(
            f"The directory of the output '{target}' does not exist.",
            f"Create it first: mkdir -p '{directory}'.",
        )
    if target.is_dir():
        raise UsageError(f"The output '{target}' is a directory.", "Name a file inside it instead.")
    if is_device or (target.exists() and not target.is_file()):
        raise UsageError(
            f"The output '{target}' is a device, which would be replaced by a file.", "Name a file."
        )
    _remove_abandoned(directory)
    if not _accepts_files(directory):
        raise UsageError(
            f"The directory '{directory}' cannot be written to.",
            "Choose another directory or change its permissions.",
        )


def _accepts_files(directory: Path) -> bool:
    """Try it: permission bits say nothing to root, nor on read-only file systems."""
    if not os.access(directory, os.W_OK | os.X_OK):
        return False
    try:
        with _scratch_directory(directory):
            return True
    except OSError:
        return False


def require_no_folder_at_sidecar(artifact: Path) -> None:
    """Check that the sidecar of ``artifact`` can be written, before any work; raises UsageError."""
    if sidecar_path(artifact).is_dir():
        raise UsageError(
            f"The sidecar of '{artifact}' would go to '{sidecar_path(artifact)}', a directory.",
            "Move it away, or name another output.",
        )


def _followed(target: Path) -> Path:
    """Return what a link names, which is written in its place: the link stays."""
    return target.resolve() if target.is_symlink() else target


@contextlib.contextmanager
def staging(target: Path) -> Iterator[Path]:
    """Give a private directory beside ``target``; it is removed at the end, whatever happens.

    What is complete is moved from it over its final name with :func:`deliver`, so that a reader
    sees either the old file or the new one, and a failure leaves no debris.

    Raises:
        ResourceError: the disk is full.
    """
    try:
        with _scratch_directory(_followed(target).parent) as directory:
            yield directory
    except OSError as error:
        if error.errno in DISK_FULL:
            raise ResourceError(
                f"The disk was full while writing '{target}'.",
                "Free some space and run the same command again; the old file is untouched.",
            ) from error
        raise


@contextlib.contextmanager
def _scratch_directory(parent: Path) -> Iterator[Path]:
    """Make a directory that is locked while it is in use, and remove it."""
    while True:
        directory = parent / _SCRATCH.format(secrets.token_hex(8))
        directory.mkdir()
        try:
            with _locked(directory, wait=True):
                # Another process may have taken it for abandoned before it was locked.
                if directory.is_dir():
                    yield directory
                    return
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Remove the private directories that killed processes left in ``parent``.

    A living process holds the lock of its own, and the lock ends with the process.
    """
    for each in parent.glob(_SCRATCH.format("*")):
        with _locked(each, wait=False) as ours:
            if ours:
                shutil.rmtree(each, ignore_errors=True)


@contextlib.contextmanager
def _locked(directory: Path, *, wait: bool) -> Iterator[bool]:
    """Lock a directory, and give whether it was had; the lock leaves no file behind."""
    if sys.platform == "win32":
        yield False
        return
    try:
        # A pipe of that name would be waited for.
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield False
        return
    try:
        had = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        # Somebody else has it, or the file system knows no locks, such as some network ones.
        except OSError:
            had = False
        yield had
    finally:
        os.close(handle)


def base_name(given: str) -> str:
    """Return the end of a path or an address; its query, which may hold a key, is left out."""
    return Path(urlsplit(given).path if "://" in given else given).name


def deliver(staged: Path, target: Path) -> None:
    """Move a complete ``staged`` file over ``target`` in one step, on disk before it is visible."""
    deliver_together([(staged, target)])


def deliver_together(moves: Sequence[tuple[Path, Path]]) -> None:
    """Move several complete files; all are on disk before the first of them is moved."""
    for staged, _ in moves:
        # Windows refuses it for a file that is open for reading alone.
        with staged.open("r+b") as stream:
            os.fsync(stream.fileno())
    for staged, target in moves:
        _move(staged, _followed(target))


def _move(staged: Path, target: Path) -> None:
    try:
        staged.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # Of files that are delivered together, one may be a link to another file system.
        with staging(target) as directory:
            copied = directory / target.name
            shutil.copyfile(staged, copied)
            with copied.open("r+b") as stream:
                os.fsync(stream.fileno())
            copied.replace(target)
        staged.unlink()


@contextlib.contextmanager
def one_at_a_time(directory: Path) -> Iterator[None]:
    """Wait until no other process of ours delivers files into ``directory``.

    Several files that belong together are moved one after the other: without this, two exports to
    one target could leave the model of one beside the sidecar of the other. The directory itself
    is locked, so that no lock file stays behind.
    """
    # A file system without locks is no reason to fail.
    with _locked(directory, wait=True):
        yield


def write_atomically(target: Path, content: bytes | str) -> None:
    """Write ``content`` (text as UTF-8) to ``target`` so that it is never seen half-written.

    What UTF-8 has no bytes for, such as those of a file name in another encoding, is escaped.

    Raises:
        ResourceError: the disk is full; what stood at ``target`` is untouched.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with staging(target) as directory:
        staged = directory / target.name
        staged.write_bytes(data)
        deliver(staged, target)


def resolve_inside(directory: Path, location: str) -> Path:
    """Resolve a file that a model file names, which must lie in the model's own directory.

    Raises:
        ModelFileError: ``location`` is absolute, climbs out with ``..``, or has a symbolic link.
    """
    path = directory / location
    try:
        plain = path.resolve() == directory.resolve() / location
        # A longer name fails later with an error of the system's.
        plain &= len(os.fsencode(location)) <= _LONGEST_NAME
    except (OSError, ValueError, RuntimeError):  # a link to itself, or no name at all
        plain = False
    if not plain or Path(location).is_absolute() or ".." in Path(location).parts:
        raise ModelFileError(
            f"The model names the external file '{location[:_LONGEST_NAME]}', which is not a plain "
            "file in its own directory.",
            "Get the model from a source you trust, with its data file beside it.",
        )
    return path
