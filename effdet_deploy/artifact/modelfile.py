"""Recognition of model files by their content, and the spec that belongs to a file.

This module needs neither torch nor onnx.
"""

from __future__ import annotations

import warnings
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from effdet_deploy.artifact.codec import MAX_TEXT, decode
from effdet_deploy.artifact.onnxfile import read_onnx
from effdet_deploy.artifact.spec import METADATA_KEY, DetectorSpec
from effdet_deploy.errors import (
    DataError,
    EffdetDeployError,
    EffdetDeployWarning,
    ModelFileError,
)
from effdet_deploy.files import (
    BROKEN_ARCHIVE,
    read_json_object,
    resolve_inside,
    sha256_file,
    sidecar_path,
    why_no_file,
)

if TYPE_CHECKING:
    from pathlib import Path

Content = Literal["onnx", "tensorrt", "torchscript"]

SUFFIXES: dict[str, Content] = {
    ".onnx": "onnx",
    ".engine": "tensorrt",
    ".plan": "tensorrt",
    ".torchscript": "torchscript",
    ".pt": "torchscript",
}
"""The content that a file of each suffix must have."""

_NAMES = {
    "onnx": "an ONNX model",
    "tensorrt": "a TensorRT engine",
    "torchscript": "a TorchScript archive",
}
_ENGINE_MAGIC = (b"ptrt", b"ftrt", b"vtrt")
"""The first bytes of an engine: old and new TensorRT, and TensorRT-RTX."""
_ZIP_MAGIC = b"PK\x03\x04"
_PICKLE_MAGIC = b"\x80"
_MAX_SIDECAR = 1 << 26
"""The most bytes of JSON that are read; Python takes ten times as much memory for them."""
_REMEDY = "Export the model again, or delete the sidecar."


@dataclass(frozen=True)
class Sidecar:
    """The JSON document beside an artifact: its spec, its SHA-256 and the verification report."""

    spec: DetectorSpec | None
    sha256: str
    verification: dict[str, Any] | None


def require_model_file(path: Path) -> None:
    """Check that ``path`` is a file and is not empty.

    Raises:
        ModelFileError: the path is absent, a directory or an empty file.
    """
    if reason := why_no_file(path):
        remedy = "Name the model file inside it." if path.is_dir() else "Check the path."
        raise ModelFileError(f"The model '{path}' {reason}.", remedy)
    if path.stat().st_size == 0:
        raise ModelFileError(
            f"The model '{path}' is empty.", "Get the file again or export it again."
        )


def recognize(path: Path) -> Content:
    """Return what kind of model ``path`` holds, by its content and not by its name.

    Raises:
        ModelFileError: the file is absent, empty, truncated, or not a model.
    """
    require_model_file(path)
    with path.open("rb") as stream:
        head = stream.read(9)
    if head[:4] in _ENGINE_MAGIC:
        return "tensorrt"
    if head[:4] == _ZIP_MAGIC:
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except BROKEN_ARCHIVE as error:
            raise ModelFileError(
                f"'{path}' is a truncated or damaged archive: {error}.",
                "Get the file again or export it again.",
            ) from error
        if any(name.endswith("/constants.pkl") for name in names):
            return "torchscript"
        raise _checkpoint_error(path)
    if head[:1] == _PICKLE_MAGIC or head[8:9] == b"{":
        raise _checkpoint_error(path)
    read_onnx(path)
    return "onnx"


def _checkpoint_error(path: Path) -> ModelFileError:
    return ModelFileError(
        f"'{path}' looks like a checkpoint (weights only), not like an exported model.",
        f"Export it first: effdet-export --weights '{path}' model.onnx.",
    )


def require_content(path: Path, wanted: Content, instead: str = "") -> None:
    """Check that ``path`` holds a model of the kind ``wanted``; ``instead`` is added to the remedy.

    Raises:
        ModelFileError: the file holds something else, which the message names, or is unreadable.
    """
    found = recognize(path)
    if found != wanted:
        suffix = next(suffix for suffix, content in SUFFIXES.items() if content == found)
        remedy = f"Rename it to end in '{suffix}', or name the right file."
        if SUFFIXES.get(path.suffix.lower()) == found:
            remedy = f"Name a file that holds {_NAMES[wanted]}{instead}."
        raise ModelFileError(f"'{path}' holds {_NAMES[found]}, not {_NAMES[wanted]}.", remedy)


def read_sidecar(path: Path) -> Sidecar | None:
    """Read the sidecar of the artifact ``path``; None if it has no sidecar.

    Raises:
        DataError: the sidecar does not have the form that effdet-deploy writes.
    """
    sidecar = sidecar_path(path)
    if not sidecar.is_file():
        return None
    size = sidecar.stat().st_size
    if size > _MAX_SIDECAR:
        raise DataError(
            f"The sidecar '{sidecar}' has {size:,} bytes, more than any export writes.", _REMEDY
        )
    document = read_json_object(sidecar, "The sidecar", _REMEDY)
    spec = document.get("spec")
    return Sidecar(
        DetectorSpec.from_dict(spec) if spec is not None else None,
        decode(document.get("sha256", ""), str, "sha256"),
        decode(document.get("verification"), dict[str, Any] | None, "verification"),
    )


def read_spec(path: Path, content: Content) -> DetectorSpec:
    """Read the spec of an artifact: its own metadata first, then the sidecar.

    Raises:
        ModelFileError: neither the file nor the sidecar has a spec.
        DataError: the spec is damaged or has a newer version.
    """
    text = None
    if content == "onnx":
        text = read_onnx(path).metadata.get(METADATA_KEY)
    elif content == "torchscript":
        text = _spec_in_archive(path)
    if text is not None:
        return DetectorSpec.from_json(text)
    sidecar = read_sidecar(path)
    if sidecar is None or sidecar.spec is None:
        raise ModelFileError(
            f"'{path}' carries no effdet-deploy spec, neither inside nor in "
            f"'{sidecar_path(path).name}', so its inputs and outputs cannot be interpreted.",
            "Export the model with effdet-export, or put its sidecar beside it.",
        )
    return sidecar.spec


def _spec_in_archive(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            ending = f"/extra/{METADATA_KEY}"
            found = [each for each in archive.infolist() if each.filename.endswith(ending)]
            if not found:
                return None
            # Zeros compress a thousandfold, so a small archive may declare gigabytes.
            with archive.open(found[0]) as stream:
                return stream.read(MAX_TEXT + 1).decode()
    except BROKEN_ARCHIVE as error:
        raise ModelFileError(
            f"The spec inside '{path}' is damaged: {error}.", "Export or copy the file again."
        ) from error


def check_external_files(path: Path, spec: DetectorSpec) -> None:
    """Check the data files that an ONNX model names: location, presence, size and SHA-256.

    Raises:
        ModelFileError: one lies outside the model's directory, is missing, or differs from the
            size and hash in the spec.
    """
    recorded = {each.name: each for each in spec.external_files}
    for name in sorted({*read_onnx(path).external, *recorded}):
        data = resolve_inside(path.parent, name)
        if not data.is_file():
            raise _external_file_error(path, name, "is missing")
        if (known := recorded.get(name)) is None:
            warnings.warn(
                f"'{path}' reads '{name}', which its export did not write: the weights may have "
                "been exchanged.",
                EffdetDeployWarning,
                stacklevel=3,
            )
            continue
        size = data.stat().st_size
        if size != known.size:
            raise _external_file_error(
                path, name, f"has {size} bytes where {known.size} are expected"
            )
        if sha256_file(data) != known.sha256:
            raise _external_file_error(path, name, "has changed since the export")


def require_engine_of(sidecar: Sidecar | None, engine: Path, digest: str) -> None:
    """Check that an engine is the one that its sidecar describes.

    Args:
        sidecar: the sidecar beside the engine, or None.
        engine: the path of the engine.
        digest: the SHA-256 of the engine.

    Raises:
        ModelFileError: the SHA-256 differs, or there is no sidecar.
    """
    if sidecar is None or sidecar.sha256 != digest:
        raise ModelFileError(
            f"The engine '{engine}' is not the one that its sidecar describes: the hash differs.",
            "It was edited, replaced or renamed: copy the engine and its sidecar again, together.",
        )


def warn_if_changed(path: Path) -> None:
    """Compare the artifact with the SHA-256 in its sidecar, if it has a sidecar.

    Warns:
        EffdetDeployWarning: the file was changed or replaced after its export, or its sidecar is
            damaged.
    """
    try:
        sidecar = read_sidecar(path)
    except DataError as error:
        said = error.cause
    else:
        if sidecar is None or sidecar.sha256 in ("", sha256_file(path)):
            return
        said = (
            f"'{path}' is not the file that '{sidecar_path(path).name}' describes: it was changed "
            "after its export, so its verification no longer holds."
        )
    warnings.warn(said, EffdetDeployWarning, stacklevel=3)


def _external_file_error(path: Path, name: str, what: str) -> EffdetDeployError:
    return ModelFileError(
        f"The external file '{name}' of the model '{path}' {what}.",
        "Copy the model and its data file again, together.",
    )
