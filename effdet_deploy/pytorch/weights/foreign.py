"""Files that are not checkpoints of ours, told apart by their first bytes, names and keys."""

from __future__ import annotations

import re
import zipfile
from typing import TYPE_CHECKING

from effdet_deploy.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_LEVELDB_MAGIC = bytes.fromhex("57fb808b247547db")
"""Last eight bytes of a TensorFlow ``.index`` file, which is a LevelDB table."""
_LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""First bytes of ``torch.save`` before version 1.6: its magic number, pickled."""

_TF_REMEDY = (
    "Convert it with tools/convert_tf2pytorch of efficientdet-pytorch, or use the converted "
    "weights: --weights pretrained."
)
_ZYLO117 = (
    "is a checkpoint of zylo117/Yet-Another-EfficientDet-Pytorch, whose network differs from "
    "effdet's"
)
_ZYLO117_REMEDY = (
    "Train or fine-tune with effdet (rwightman/efficientdet-pytorch), or use --weights pretrained."
)
_FIRST_BYTES = (
    # offset, bytes, what it is, what to do
    (0, b"\x89HDF\r\n\x1a\n", "a Keras or HDF5 file of TensorFlow", _TF_REMEDY),
    (4, b"TFL3", "a TensorFlow Lite model", _TF_REMEDY),
    (
        0,
        b"version https://git-lfs",
        "a Git LFS pointer, not the file it stands for",
        "Fetch it with: git lfs pull.",
    ),
    (
        0,
        b"<",
        "a web page or XML, not a checkpoint",
        "Download the file itself, not the page that shows it.",
    ),
)
_TF_DATA = re.compile(r"\.data-\d{5}-of-\d{5}$")
_KEYS = (
    # of any weight, what the file is, what to do
    (
        re.compile(r"^(backbone_net\.|bifpn\.\d+\.|regressor\.|classifier\.header\.)"),
        _ZYLO117,
        _ZYLO117_REMEDY,
    ),
    (
        re.compile(r"(^|/)(efficientnet-(b\d|lite\d)|resample_p\d|fpn_cells|box_net|class_net)/"),
        "holds the weights of a TensorFlow EfficientDet",
        _TF_REMEDY,
    ),
)


def refuse_foreign_path(path: Path) -> None:
    """Check that ``path`` is a file, and not part of a TensorFlow checkpoint.

    Raises:
        WeightsError: it is not; what it is and what to do are named.
    """
    is_prefix = not path.exists() and path.with_name(path.name + ".index").is_file()
    if is_prefix or _TF_DATA.search(path.name):
        raise _refusal(path, "a TensorFlow checkpoint", _TF_REMEDY)
    if path.is_dir():
        if (path / "saved_model.pb").exists() or any(path.glob("*.index")):
            raise _refusal(path, "a TensorFlow SavedModel or checkpoint directory", _TF_REMEDY)
        raise _refusal(path, "a directory", "Name the checkpoint file inside it.")
    if not path.is_file():
        raise WeightsError(
            f"There is no weights file '{path}'.",
            "Give a path, a URL, or one of: pretrained, random.",
        )


def sniff(path: Path) -> str:
    """Return a checkpoint's container: torch zip, torch legacy, safetensors or numpy archive.

    Raises:
        WeightsError: it is none of them; what it is and what to do are named where known.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        file.seek(max(0, size - len(_LEVELDB_MAGIC)))
        tail = file.read()
    if not head:
        raise _refusal(path, "empty", "Copy or download it again.")
    if head.startswith(b"PK\x03\x04"):
        return _sniff_zip(path)
    if head.startswith(_LEGACY_MAGIC):
        return "torch legacy"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        return "safetensors"
    for offset, expected, what, remedy in _FIRST_BYTES:
        if head[offset : offset + len(expected)] == expected:
            raise _refusal(path, what, remedy)
    if tail == _LEVELDB_MAGIC or path.suffix == ".pb":
        raise _refusal(path, "part of a TensorFlow model", _TF_REMEDY)
    if head.startswith(b"\x80"):
        raise _refusal(
            path,
            "a pickle that torch did not write, which could run code when it is loaded",
            "Save the weights with torch.save(model.state_dict(), ...) or as safetensors.",
        )
    raise _refusal(path, "neither a torch nor a safetensors file", "Check that it is whole.")


def _sniff_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise damaged(path, error) from error
    if any("/code/" in name for name in names):
        raise _refusal(
            path,
            "a TorchScript archive: an exported model, not a checkpoint",
            "Give the checkpoint that it was made from.",
        )
    if any(name.endswith(".weights.h5") for name in names):
        raise _refusal(path, "a Keras model of TensorFlow", _TF_REMEDY)
    if names and all(name.endswith(".npy") for name in names):
        return "numpy archive"
    if not any(name.endswith("/data.pkl") for name in names):
        raise _refusal(
            path, "a zip archive without torch weights", "Unpack it and give the checkpoint."
        )
    return "torch zip"


def refuse_foreign_keys(keys: Collection[str], name: str) -> None:
    """Check that names of weights are not those of another EfficientDet implementation.

    Raises:
        WeightsError: they are zylo117's or TensorFlow's.
    """
    for pattern, what, remedy in _KEYS:
        if any(pattern.search(key) for key in keys):
            raise WeightsError(f"'{name}' {what}.", remedy)


def damaged(path: Path, error: BaseException) -> WeightsError:
    """Return what to say of a checkpoint that ends early or makes no sense."""
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return WeightsError(
        f"The checkpoint '{path.name}' is damaged or incomplete ({first_line}).",
        "Copy or download it again.",
    )


def _refusal(path: Path, what: str, remedy: str) -> WeightsError:
    return WeightsError(f"The weights file '{path.name}' is {what}.", remedy)
