"""Reading of torch's files: a pickle, and the storages that it refers to.

Since version 1.6 ``torch.save`` writes a zip archive with ``NAME/data.pkl`` and an entry
``NAME/data/KEY`` per storage. Before, it wrote several pickles, followed by the storages.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from effdet_deploy.errors import MissingPackageError, WeightsError
from effdet_deploy.pytorch.weights.unpickling import MAX_PICKLE_BYTES, StandIn, unpickle

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO


_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
_MOST_UNPACKED, _SMALL = 100, 1 << 24
"""A file may unpack to this many times its size, and to this many bytes more."""
_LEGACY_HEADER = 3
"""Number of pickles before the object: a magic number, a version, and facts about the machine."""


@dataclass(slots=True)
class Storage:
    """The bytes of tensors; ``dtype`` is None for element types that no weight has."""

    dtype: torch.dtype | None
    data: bytearray


def read_zip(path: Path) -> object:
    """Read a zip archive that ``torch.save`` wrote.

    Raises:
        ForbiddenNameError: its pickle names something that could act on the machine.
        WeightsError: it was written on a big-endian machine.
        Exception: the file is damaged; :mod:`effdet_deploy.pytorch.weights.checkpoint` lists the
            possible errors.
    """
    with zipfile.ZipFile(path) as archive:
        pickled = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        root = pickled.removesuffix("data.pkl")
        if archive.getinfo(pickled).file_size > MAX_PICKLE_BYTES:
            raise pickle.UnpicklingError("its list of objects is larger than any checkpoint's")
        if (
            f"{root}byteorder" in archive.namelist()
            and archive.read(f"{root}byteorder") != b"little"
        ):
            raise WeightsError(
                f"The checkpoint '{path.name}' was written on a big-endian machine.",
                "Load it in torch on an x86 machine and save it again there with torch.save.",
            )
        storages: dict[str, Storage] = {}
        size = path.stat().st_size

        def load_storage(pid: Any) -> Storage:
            key, dtype = _key_and_dtype(pid)
            if key not in storages:
                entry = archive.getinfo(f"{root}data/{key}")
                # torch stores without compression, so another program wrote a compressed entry.
                if entry.file_size != entry.compress_size:
                    raise pickle.UnpicklingError("its tensors are compressed")
                if entry.file_size + sum(len(each.data) for each in storages.values()) > size:
                    raise pickle.UnpicklingError("its tensors overlap")
                storages[key] = Storage(dtype, bytearray(archive.read(entry)))
            return storages[key]

        return unpickle(io.BytesIO(archive.read(pickled)), load_storage)


def read_legacy(path: Path) -> object:
    """Read a file of ``torch.save`` before version 1.6; raises as :func:`read_zip`."""
    storages: dict[str, Storage] = {}

    def load_storage(pid: Any) -> object:
        if isinstance(pid, tuple) and pid and pid[0] == "module":
            return pid[1]  # a class and its source; the class is already a stand-in
        key, dtype = _key_and_dtype(pid)
        return storages.setdefault(key, Storage(dtype, bytearray()))

    with path.open("rb") as file:
        for _ in range(_LEGACY_HEADER):
            unpickle(file, load_storage)
        loaded = unpickle(file, load_storage)
        keys = unpickle(file, load_storage)
        if isinstance(keys, StandIn) or not isinstance(keys, list | tuple):
            raise pickle.UnpicklingError("it does not list its storages")
        for key in keys:
            _fill(storages[str(key)], file)
    return loaded


def _key_and_dtype(pid: Any) -> tuple[str, torch.dtype | None]:
    if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
        raise pickle.UnpicklingError("it refers to something that is not a storage")
    kind = getattr(pid[1], "qualified_name", "")
    return str(pid[2]), _DTYPES.get(kind.rpartition(".")[2])


def _fill(storage: Storage, file: BinaryIO) -> None:
    (elements,) = struct.unpack("<q", file.read(8))
    if storage.dtype is None:
        raise pickle.UnpicklingError("it holds storages of a type that weights cannot have")
    size = elements * storage.dtype.itemsize
    left = os.fstat(file.fileno()).st_size - file.tell()
    if not 0 <= size <= left:
        raise EOFError("a storage ends too early")
    storage.data = bytearray(file.read(size))


def read_numpy(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read the arrays of a numpy archive; raises as :func:`read_zip`."""
    with zipfile.ZipFile(path) as archive:
        _require_plausible(path, sum(each.file_size for each in archive.infolist()))
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _require_plausible(path: Path, declared: int) -> None:
    """Check how much a file unpacks to: zeros compress a thousandfold, but weights do not."""
    if declared > _MOST_UNPACKED * path.stat().st_size + _SMALL:
        raise ValueError(
            f"it unpacks to {declared:,} bytes, too many for weights in a file of its size"
        )


def read_hdf5(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read all arrays of numbers in an HDF5 file under their full names, as Keras saves weights.

    Raises:
        MissingPackageError: h5py is not installed.
        OSError: the file is damaged.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingPackageError("h5py", "reading .h5 weights", "keras") from error
    found: dict[str, np.ndarray[Any, Any]] = {}

    declared = 0

    def take(name: str, node: object) -> None:
        nonlocal declared
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "fiub":
            declared += node.size * node.dtype.itemsize
            _require_plausible(path, declared)
            found[name] = np.asarray(node[()])

    with h5py.File(path, "r") as file:
        file.visititems(take)
    return found
