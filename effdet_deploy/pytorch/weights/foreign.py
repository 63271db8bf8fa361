"""Recognition of files that are not supported checkpoints: by first bytes, suffix, weight names."""

from __future__ import annotations

import re
import zipfile
from typing import TYPE_CHECKING

from effdet_deploy.errors import WeightsError
from effdet_deploy.files import BROKEN_ARCHIVE

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""First bytes of ``torch.save`` before version 1.6: its magic number, pickled."""
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

_FIRST_BYTES = (
    # offset, bytes, kind of file, remedy
    (
        4,
        b"TFL3",
        "a TensorFlow Lite model",
        "Pass the checkpoint of automl or the Object Detection API from which it was converted.",
    ),
    (
        0,
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself",
        "Fetch the file with: git lfs pull.",
    ),
    (
        0,
        b"<",
        "a web page or XML, not a checkpoint",
        "Download the file itself, not the page that shows it.",
    ),
)
_SUFFIXES = {
    # suffix of a path, kind of file, remedy
    ".etlt": ("an encrypted model of NVIDIA TAO", "Export ONNX with TAO itself: tao model export."),
    ".tlt": ("an encrypted model of NVIDIA TAO", "Export ONNX with TAO itself: tao model export."),
    ".pb": (
        "a frozen graph of TensorFlow",
        "Pass the checkpoint, or the SavedModel's folder with its variables.",
    ),
    ".keras": ("a Keras 3 archive", "Save the weights with automl's own save_weights."),
}
_KEYS = (
    # pattern of a weight's name, kind of file, remedy
    (
        re.compile(r"^(regressor|classifier)\.layers\."),
        "is a checkpoint of signatrix/efficientdet, which is another network",
        "Train with effdet, zylo117, automl or the TensorFlow Object Detection API.",
    ),
    (
        re.compile(r"^(bbox_head|neck)\."),
        "is a checkpoint of MMDetection, whose EfficientDet is not supported",
        "Export it with MMDeploy, or train with effdet, zylo117 or automl.",
    ),
)


def refuse_foreign_path(path: Path) -> None:
    """Check that ``path`` is a file, and that its suffix does not stand for an unsupported kind.

    Raises:
        WeightsError: ``path`` fails this check; the message names the kind of file and a remedy.
    """
    if path.suffix in _SUFFIXES:
        raise _refusal(path, *_SUFFIXES[path.suffix])
    if path.is_dir():
        raise _refusal(path, "a directory", "Name the checkpoint file inside it.")
    if path.exists() and not path.is_file():
        raise _refusal(path, "not an ordinary file", "Copy its content into a file first.")
    if not path.is_file():
        raise WeightsError(
            f"There is no weights file '{path}'.",
            "Pass a path, a URL, or one of: pretrained, random.",
        )


def sniff(path: Path) -> str:
    """Return the kind of a file: torch zip, torch legacy, safetensors, numpy archive or HDF5.

    Raises:
        WeightsError: the file has another kind; the message names it and a remedy, if known.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise _refusal(path, "empty", "Copy or download it again.")
    if head.startswith(b"PK\x03\x04"):
        return _sniff_zip(path)
    if head.startswith(_HDF5_MAGIC):
        return "HDF5"
    if head.startswith(_LEGACY_MAGIC):
        return "torch legacy"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        return "safetensors"
    for offset, expected, what, remedy in _FIRST_BYTES:
        if head[offset : offset + len(expected)] == expected:
            raise _refusal(path, what, remedy)
    if head.startswith(b"\x80"):
        raise _refusal(
            path,
            "a pickle that torch did not write, which could run code when it is loaded",
            "Save the weights with torch.save(model.state_dict(), ...) or as safetensors.",
        )
    raise _refusal(
        path, "neither a torch nor a safetensors file", "Check that the file is complete."
    )


def _sniff_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except BROKEN_ARCHIVE as error:
        raise damaged(path, error) from error
    if any("/code/" in name for name in names):
        raise _refusal(
            path,
            "a TorchScript archive: an exported model, not a checkpoint",
            "Pass the checkpoint from which it was made.",
        )
    if any(name.endswith(".weights.h5") for name in names):
        raise _refusal(path, *_SUFFIXES[".keras"])
    if names and all(name.endswith(".npy") for name in names):
        return "numpy archive"
    if not any(name.endswith("/data.pkl") for name in names):
        raise _refusal(
            path, "a zip archive without torch weights", "Unpack it and pass the checkpoint."
        )
    return "torch zip"


def refuse_foreign_keys(keys: Collection[str], name: str) -> None:
    """Check that the names of weights do not belong to an unsupported implementation.

    Raises:
        WeightsError: they belong to a network that is not effdet's.
    """
    for pattern, what, remedy in _KEYS:
        if any(pattern.search(key) for key in keys):
            raise WeightsError(f"'{name}' {what}.", remedy)


def damaged(path: Path, error: BaseException) -> WeightsError:
    """Return the error for a checkpoint that ends early or cannot be parsed."""
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return WeightsError(
        f"The checkpoint '{path.name}' is damaged or incomplete ({first_line}).",
        "Copy or download it again.",
    )


def _refusal(path: Path, what: str, remedy: str) -> WeightsError:
    return WeightsError(f"The weights file '{path.name}' is {what}.", remedy)
