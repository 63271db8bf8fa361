"""Download of published weights: checked, resumed and done once if the file name has a hash."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import secrets
import string
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING

from effdet_deploy.cache import CACHE_VARIABLE, cache_directory
from effdet_deploy.errors import DownloadError, ResourceError, UsageError
from effdet_deploy.files import DISK_FULL, deliver, one_at_a_time, sha256_file

if TYPE_CHECKING:
    from pathlib import Path

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes received, and the number of all bytes or None if unknown."""

_TIMEOUT_S = 30.0
_CHUNK = 1 << 18
_HANDLERS = (
    urllib.request.ProxyHandler,
    urllib.request.UnknownHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPRedirectHandler,
    urllib.request.HTTPErrorProcessor,
)
"""Handlers for http(s) only, so that no redirect leads to a local file."""
_NAMED_HASH = re.compile(r"-(?=\d*[a-f]|08676892\.)([0-9a-f]{8,64})\.\w+$")
"""A hash in a file name. Digits alone are a date or a number of steps, except for one published
file."""


def cached_path(url: str) -> Path:
    """Return the path for the file of ``url`` in the cache, whether it is there or not.

    A name with a hash in it is used as it is; other names get a hash of the URL.
    """
    last = urllib.parse.unquote(urllib.parse.urlsplit(url).path).rpartition("/")[2]
    name = re.sub(r"[^\w.+-]", "_", last).lstrip(".") or "weights"
    if _NAMED_HASH.search(name):
        return cache_directory() / name
    return cache_directory() / hashlib.sha256(url.encode()).hexdigest()[:16] / name


def fetch(url: str, progress: Progress | None = None) -> Path:
    """Return the file of an http(s) ``url``, from the cache if its name contains its hash.

    The hash in a name is the beginning of the file's SHA-256: eight or more hexadecimal digits
    before the suffix, as in ``tf_efficientdet_d2_43-8107aa99.pth``. Without a hash, an old copy
    could not be recognized, so the file is downloaded every time.

    Raises:
        UsageError: the address is not an http(s) URL.
        DownloadError: the transfer failed, or delivered a file with another hash.
        ResourceError: the disk is full or the cache cannot be written.
    """
    try:
        scheme = urllib.parse.urlsplit(url).scheme
    except ValueError:
        scheme = ""
    if scheme not in ("http", "https"):
        raise UsageError(
            f"'{url}' is not an http or https URL.", "Download the file and pass its path."
        )
    target = cached_path(url)
    named = _NAMED_HASH.search(target.name)
    if named and _is_whole(target, named[1]):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if named is None:
            _fetch_afresh(url, target, progress or _silent)
            return target
        with one_at_a_time(target.parent):
            # Another process may have downloaded the file in the meantime.
            if not _is_whole(target, named[1]):
                part = target.with_name(f"{target.name}.part")
                _receive(url, part, progress or _silent)
                actual = sha256_file(part)
                if not actual.startswith(named[1]):
                    part.unlink()
                    raise DownloadError(
                        f"The file from {url} has SHA-256 {actual[:16]}, not {named[1]}; the file "
                        "was removed.",
                        "Run the same command again; if this repeats, get the file elsewhere and "
                        "pass --weights PATH.",
                    )
                deliver(part, target)
    except (OSError, http.client.HTTPException) as error:
        raise _translated(error, url, target) from error
    return target


def _fetch_afresh(url: str, target: Path, progress: Progress) -> None:
    """Download a file without a hash in its name; a part of the file cannot be resumed."""
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        _receive(url, part, progress)
        deliver(part, target)
    finally:
        # An earlier error is more useful than the error that there is no file to remove.
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _is_whole(target: Path, named_hash: str) -> bool:
    return target.is_file() and sha256_file(target).startswith(named_hash)


def _silent(received: int, total: int | None) -> None:
    """Report no progress."""


def _receive(url: str, part: Path, progress: Progress) -> None:
    """Download to ``part``; continue if an earlier transfer has stopped."""
    have = part.stat().st_size if part.exists() else 0
    # Characters that are not ASCII are escaped, as in a browser; what is escaped already stays.
    address = urllib.parse.quote(url, safe=string.punctuation)
    request = urllib.request.Request(address, headers={"User-Agent": "effdet-deploy"})  # noqa: S310 - the scheme is checked
    if have:
        request.add_header("Range", f"bytes={have}-")
    opener = urllib.request.OpenerDirector()
    for handler in _HANDLERS:
        opener.add_handler(handler())
    try:
        response = opener.open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if not have or error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return
        part.unlink()
        _receive(url, part, progress)
        return
    # A server may ignore the request for the rest and send the whole file.
    resumed = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    length = response.headers.get("Content-Length", "")
    received, total = 0, int(length) if length.isdigit() else None
    if response.status == http.client.PARTIAL_CONTENT and resumed and int(resumed[1]) == have:
        received, total = have, None if resumed[2] == "*" else int(resumed[2])
    with response, part.open("ab" if received else "wb") as file:
        progress(received, total)
        while chunk := response.read1(_CHUNK):
            file.write(chunk)
            received += len(chunk)
            progress(received, total)
    if total is not None and received < total:
        raise DownloadError(
            f"The download of {url} stopped after {received} of {total} bytes.",
            "Run the same command again: it continues the download if the file's name contains a "
            "hash, and otherwise starts again.",
        )


def _translated(
    error: OSError | http.client.HTTPException, url: str, target: Path
) -> DownloadError | ResourceError:
    """Turn an error of the network or the disk into one of ours."""
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return ResourceError(
            f"The disk was full while downloading {url} to '{target.parent}'.",
            f"Free some space, or set {CACHE_VARIABLE} to a directory with free space.",
        )
    if isinstance(error, FileExistsError | NotADirectoryError):
        places = (target.parent, *target.parent.parents)
        file = next((each for each in places if each.is_file()), target.parent)
        return ResourceError(
            f"The cache '{target.parent}' cannot be created: '{file}' is a file.",
            f"Move '{file}' away, or set {CACHE_VARIABLE} to a writable directory.",
        )
    if isinstance(error, PermissionError):
        return ResourceError(
            f"The cache '{target.parent}' cannot be written to ({error.strerror}).",
            f"Set {CACHE_VARIABLE} to a writable directory.",
        )
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    status = f"HTTP {error.code}: " if isinstance(error, urllib.error.HTTPError) else ""
    # Only a file with a hash in its name is looked for in the cache.
    is_kept = _NAMED_HASH.search(target.name) is not None
    either = f"copy it here to '{target}', or " if is_kept else ""
    return DownloadError(
        f"{url} could not be downloaded ({status}{reason}).",
        f"Download the file on a machine with a network; then {either}pass --weights PATH.",
    )
