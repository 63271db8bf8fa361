"""The timing cache: checked before it is used, and replaced in one step.

TensorRT itself may treat a damaged cache as empty, or go on reading. A cache of ours therefore has
a sidecar (``FILE.json``) with its hash, and the release and GPU it was measured with. A cache
without a sidecar, such as one of trtexec, is checked only by TensorRT.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from effdet_deploy.errors import UsageError
from effdet_deploy.files import BROKEN_DOCUMENT, sha256_bytes, sidecar_path, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    import tensorrt

    from effdet_deploy.runtimes.tensorrt.library import Log


@dataclass(frozen=True)
class Origin:
    """What timings depend on: the backend, its release and the GPU."""

    backend: str
    version: str
    gpu: str


def require_own_note(path: Path) -> None:
    """Check that the sidecar of the cache at ``path`` would not replace another kind of file.

    Raises:
        UsageError: another file has the sidecar's name.
    """
    note = sidecar_path(path)
    if not note.exists():
        return
    try:
        recorded = json.loads(note.read_bytes())
        is_ours = {"origin", "sha256"} == recorded.keys()
    except BROKEN_DOCUMENT:
        # A damaged sidecar beside a cache counts as ours.
        is_ours = note.is_file() and path.is_file()
    if not is_ours:
        raise UsageError(
            f"The sidecar of the timing cache would replace '{note}', a file of another kind.",
            "Name another --timing-cache, or move that file away.",
        )


def attach(config: tensorrt.IBuilderConfig, path: Path, origin: Origin, log: Log) -> str:
    """Give the build the cache at ``path``, or an empty cache.

    Returns:
        Why the file was discarded, or an empty string if it was not.
    """
    content = path.read_bytes() if path.is_file() else b""
    reason = _why_unfit(content, path, origin) if content else ""
    if content and not reason:
        log.warnings.clear()
        log.errors.clear()
        cache = config.create_timing_cache(content)
        # TensorRT refuses in three ways: None, False, and an empty cache with a warning.
        if cache is None or not config.set_timing_cache(cache, False):
            reason = "TensorRT does not accept it"
        elif any("timing cache" in each for each in (*log.warnings, *log.errors)):
            reason = "TensorRT cannot read it"
        else:
            return ""
    config.set_timing_cache(config.create_timing_cache(b""), False)
    return reason


def _why_unfit(content: bytes, path: Path, origin: Origin) -> str:
    note = sidecar_path(path)
    if not note.is_file():
        return ""
    try:
        recorded = json.loads(note.read_bytes())
        made_by = Origin(**recorded["origin"])
        digest = recorded["sha256"]
    except BROKEN_DOCUMENT:
        return f"its sidecar '{note.name}' is damaged"
    if digest != sha256_bytes(content):
        return "its content is damaged"
    if made_by != origin:
        return (
            f"it was measured with {made_by.backend} {made_by.version} on {made_by.gpu}, "
            f"but this build uses {origin.version} on {origin.gpu}"
        )
    return ""


def save(config: tensorrt.IBuilderConfig, path: Path, origin: Origin) -> None:
    """Replace the cache at ``path`` and its sidecar by the measurements of this build."""
    cache = config.get_timing_cache()
    serialized = None if cache is None else cache.serialize()
    if serialized is None:
        return
    content = bytes(serialized)
    note = {"origin": asdict(origin), "sha256": sha256_bytes(content)}
    write_atomically(path, content)
    write_atomically(sidecar_path(path), json.dumps(note, indent=2) + "\n")
