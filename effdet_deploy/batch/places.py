"""Files on this machine, or at an address of an object store that fsspec knows."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effdet_deploy.detection.outputs import require_directory
from effdet_deploy.errors import MissingError, require_package
from effdet_deploy.files import require_writable_target, write_atomically

if TYPE_CHECKING:
    from typing import BinaryIO

_FILE = "file://"
_WAITS = (1.0, 4.0, 16.0)
"""Seconds before every further attempt to read: a network fault does not mean a broken picture."""
_LASTING_ERRORS = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR}
"""Errors of the system that a further attempt to read would meet again."""


def as_given(address: str) -> str:
    """Return ``address``, as a path if it names a file on this machine."""
    return address.removeprefix(_FILE)


def is_remote(address: str) -> bool:
    """Return whether ``address`` names an object store, such as ``s3://bucket/pictures``."""
    return "://" in address


def joined(folder: str, name: str) -> str:
    """Return the address of ``name`` in ``folder``; a complete address stays as it is."""
    if is_remote(name) or not folder:
        return name
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else str(Path(folder, name))


def file_system(address: str) -> tuple[Any, str]:
    """Return the fsspec file system of ``address``, and its path there.

    Raises:
        MissingError: the package for this kind of address is missing or unknown.
    """
    require_package("fsspec", "reading object stores", "batch")
    import fsspec

    try:
        return fsspec.core.url_to_fs(address)  # type: ignore[no-any-return]
    except (ImportError, ValueError) as error:
        raise MissingError(
            f"The address '{address}' cannot be opened: {error}.",
            "Install the package that fsspec needs for it: s3fs for s3://, gcsfs for gs://.",
        ) from error


def opened(address: str) -> BinaryIO:
    """Open a file for reading bytes; its last bytes can be read without all those before them.

    Raises:
        OSError: the file cannot be opened.
        MissingError: see :func:`file_system`.
    """
    files, path = file_system(address)
    return files.open(path, "rb")  # type: ignore[no-any-return]


def names_in(folder: str) -> set[str]:
    """Return the names of the files in ``folder``; empty if it does not exist."""
    files, path = file_system(folder)
    # Another machine may have written files since the last call.
    files.invalidate_cache(path)
    try:
        return {each["name"].rsplit("/", 1)[-1] for each in files.ls(path, detail=True)}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def write(address: str, content: bytes) -> None:
    """Write a file so that readers never see a part of the content; replace an old file.

    Raises:
        ResourceError: the disk is full.
    """
    if is_remote(address):
        files, path = file_system(address)
        # One request is enough: an object store shows an object when its last byte has arrived.
        files.pipe_file(path, content)
    else:
        write_atomically(Path(address), content)


def require_folder(folder: str) -> None:
    """Create ``folder`` if it is missing, and remove files in it that were left by killed workers.

    Raises:
        UsageError: ``folder`` is a file, or cannot be written to.
    """
    if not is_remote(folder):
        require_directory(Path(folder))
        Path(folder).mkdir(parents=True, exist_ok=True)
        require_writable_target(Path(folder, "part"))


class RemotePicture:
    """A picture in an object store, which is read only when needed, by the decoding thread.

    Args:
        address: the address of the picture.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def read(self) -> bytes:
        """Return the encoded picture; the read is repeated after a network fault.

        Raises:
            OSError: it is missing or unreadable, or the network fault lasts.
        """
        files, path = file_system(self._address)
        for wait in _WAITS:
            try:
                return files.cat_file(path)  # type: ignore[no-any-return]
            except OSError as error:
                if error.errno in _LASTING_ERRORS or isinstance(
                    error, FileNotFoundError | PermissionError
                ):
                    raise
                time.sleep(wait)
        return files.cat_file(path)  # type: ignore[no-any-return]
