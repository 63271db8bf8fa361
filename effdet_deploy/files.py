"""File handling for the whole package: atomic writes, hashes, safe paths."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import struct
import sys
import tokenize
import zipfile
import zlib
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
"""How many bytes a file name may have on the usual file systems."""
_SCRATCH = ".effdet-{}.tmp"
_MAX_YAML_VALUES = 400_000
# Some builds of Python have no lzma; their zipfile itself refuses entries packed with LZMA.
_LZMA = getattr(zipfile, "lzma", None)
BROKEN_ARCHIVE: tuple[type[Exception], ...] = (
    *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, SyntaxError),
    *([_LZMA.LZMAError] if _LZMA else []),
    *(OSError, EOFError, RuntimeError, ValueError, LookupError, AttributeError, TypeError),
    *(OverflowError, MemoryError),
)
"""The errors of ``zipfile`` and numpy for damaged archives and arrays in them."""
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


BROKEN_DOCUMENT: tuple[type[Exception], ...] = (
    *(OSError, ValueError, LookupError, TypeError),
    *(AttributeError, OverflowError, RecursionError),
)
"""The errors that text, JSON or YAML can raise when it is read and is damaged or unexpected."""


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
        what: the file's role in the user's command, such as ``The config file``.
        remedy: what to do if the file holds something else.

    Raises:
        DataError: the file is unreadable or does not hold a JSON object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    # A ValueError means: not UTF-8, not JSON, or an integer of thousands of digits.
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{what} '{path}' cannot be read: {error}.", remedy) from error
    if not isinstance(document, dict):
        raise DataError(f"{what} '{path}' does not hold a JSON object.", remedy)
    return document


def why_no_file(path: Path) -> str:
    """Say why a path is not a file, as the end of a sentence about it; "" if it is a file."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a link whose target does not exist" if path.is_symlink() else "does not exist"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return f"cannot be accessed ({reason})"
    if stat.S_ISREG(mode):
        return ""
    return "is a directory" if stat.S_ISDIR(mode) else "is not an ordinary file"


def parse_yaml(text: str, doing: str) -> Any:
    """Read YAML and keep every scalar as text: a class called 'no' does not become a boolean.

    Only text, lists and dicts are made, whatever tags the document has.

    Args:
        text: the document.
        doing: what the document is read for; the error says this if PyYAML is not installed.

    Raises:
        ValueError: the text is not YAML, or its aliases repeat too much; the message is one line.
        MissingPackageError: PyYAML is not installed.
    """
    require_package("yaml", doing, "export")
    import yaml

    try:
        document = yaml.load(text, yaml.BaseLoader)  # noqa: S506
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    # Ten lines can stand for 10^10 values, if every line lists ten aliases of the line before it.
    waiting, count = [document], 0
    while waiting:
        each = waiting.pop()
        count += 1
        if count > _MAX_YAML_VALUES:
            raise ValueError(f"its aliases stand for more than {_MAX_YAML_VALUES:,} values")
        if isinstance(each, list | dict):
            waiting += each.values() if isinstance(each, dict) else each
    return document


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return distinct names for files: the base name, or the path if two base names are equal."""
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
    """Return the path of a model's sidecar, a JSON file: ``model.onnx`` → ``model.onnx.json``."""
    return artifact.with_name(artifact.name + ".json")


def require_writable_target(target: Path) -> None:
    """Check that ``target`` can be written, before any work is done for it.

    If ``target`` is a link, the file that it points to is checked and will be written. Private
    directories that killed processes of effdet-deploy left beside this file are removed.

    Raises:
        UsageError: the directory is absent or read-only, or ``target`` is a directory or device.
    """
    # /dev/stdout may lead to a file that the shell has open and goes on writing to.
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
            f"The output '{target}' is a device, which a file would replace.",
            "Name an ordinary file.",
        )
    _remove_abandoned(directory)
    if not _accepts_files(directory):
        raise UsageError(
            f"The directory '{directory}' cannot be written to.",
            "Choose another directory or change its permissions.",
        )


def _accepts_files(directory: Path) -> bool:
    """Try to create a file: permission bits mean nothing for root and on read-only file systems."""
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
            f"The sidecar of '{artifact}' would replace the directory '{sidecar_path(artifact)}'.",
            "Move this directory away, or name another output.",
        )


def _followed(target: Path) -> Path:
    """Return the file that a link points to; it is written instead of the link, which stays."""
    return target.resolve() if target.is_symlink() else target


@contextlib.contextmanager
def staging(target: Path) -> Iterator[Path]:
    """Yield a private directory beside ``target``; it is removed at the end, whatever happens.

    Complete files are moved from it to their final names with :func:`deliver`, so that a reader
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
    """Make a directory that is locked while it is in use, and remove it afterwards."""
    while True:
        directory = parent / _SCRATCH.format(secrets.token_hex(8))
        directory.mkdir()
        try:
            with _locked(directory, wait=True):
                # Another process may have removed the directory as abandoned before it was locked.
                if directory.is_dir():
                    yield directory
                    return
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Remove the private directories in ``parent`` that were left when processes were killed.

    A living process holds a lock on its directory, and the lock ends with the process.
    """
    for each in parent.glob(_SCRATCH.format("*")):
        with _locked(each, wait=False) as ours:
            if ours:
                shutil.rmtree(each, ignore_errors=True)


@contextlib.contextmanager
def _locked(directory: Path, *, wait: bool) -> Iterator[bool]:
    """Lock a directory and yield whether that succeeded; the lock leaves no file behind."""
    if sys.platform == "win32":
        yield False
        return
    try:
        # Without O_DIRECTORY, opening a pipe of that name would wait forever.
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield False
        return
    try:
        had = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        # Another process holds the lock, or the file system, such as a network one, has no locks.
        except OSError:
            had = False
        yield had
    finally:
        os.close(handle)


def base_name(given: str) -> str:
    """Return the last part of a path or URL, without the query, which may hold a key."""
    return Path(urlsplit(given).path if "://" in given else given).name


def deliver(staged: Path, target: Path) -> None:
    """Move a complete ``staged`` file over ``target`` in one step, after it is safely on disk."""
    deliver_together([(staged, target)])


def deliver_together(moves: Sequence[tuple[Path, Path]]) -> None:
    """Move several complete files to their targets, after all of them are safely on disk."""
    for staged, _ in moves:
        # Windows refuses to sync a file that is open only for reading.
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
        # One of several targets may be a link to a file on another file system.
        with staging(target) as directory:
            copied = directory / target.name
            shutil.copyfile(staged, copied)
            with copied.open("r+b") as stream:
                os.fsync(stream.fileno())
            copied.replace(target)
        staged.unlink()


@contextlib.contextmanager
def one_at_a_time(directory: Path) -> Iterator[None]:
    """Wait until no other process of effdet-deploy delivers files into ``directory``.

    Files that belong together are moved one after the other. Without this lock, two exports to one
    target could leave the model of one beside the sidecar of the other. The directory itself is
    locked, so that no lock file stays behind.
    """
    # A file system without locks does not make the delivery fail.
    with _locked(directory, wait=True):
        yield


def write_atomically(target: Path, content: bytes | str) -> None:
    """Write ``content`` (text as UTF-8) to ``target`` so that it is never seen half-written.

    Characters that UTF-8 cannot encode, such as those of a file name in another encoding, are
    escaped.

    Raises:
        ResourceError: the disk is full; the old file at ``target`` is untouched.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with staging(target) as directory:
        staged = directory / target.name
        staged.write_bytes(data)
        deliver(staged, target)


def resolve_inside(directory: Path, location: str) -> Path:
    """Resolve an external file that a model names; it must lie in the model's own directory.

    Raises:
        ModelFileError: ``location`` is absolute, leaves the directory, or has a symbolic link.
    """
    path = directory / location
    try:
        plain = path.resolve() == directory.resolve() / location
        # Without this check, a longer name would fail later with an error of the operating system.
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
