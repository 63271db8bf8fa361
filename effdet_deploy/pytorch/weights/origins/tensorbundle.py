"""Reading of TensorFlow checkpoints (TensorBundle) with numpy, without TensorFlow.

A checkpoint ``PREFIX`` consists of a table ``PREFIX.index`` of names and positions, and raw values
in ``PREFIX.data-00000-of-00001`` and so on. The table has LevelDB's format
(https://github.com/google/leveldb/blob/main/doc/table_format.md); the messages in it are
TensorFlow's ``tensor_bundle.proto`` and ``trackable_object_graph.proto``; the few fields that are
read here are declared below. Every block and every tensor has a masked CRC-32C.
"""

from __future__ import annotations

import functools
import re
import struct
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from effdet_deploy.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

INDEX_SUFFIX = ".index"
_PART = re.compile(r"(\.index|\.data-\d{5}-of-\d{5})$")
_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER_BYTES = 48
_MASK_DELTA = 0xA282EAD8
_LONGEST_KEY = 4096
"""The most bytes of a name. A name is stored as a part of the previous name and a few more bytes,
so a small file could hold huge names."""
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_STRING = 7
_DTYPES: dict[int, str] = {
    1: "<f4",
    2: "<f8",
    3: "<i4",
    4: "|u1",
    5: "<i2",
    6: "|i1",
    9: "<i8",
    10: "|b1",
    19: "<f2",
    22: "<u4",
    23: "<u8",
}
"""numpy's types by the numbers in TensorFlow's ``types.proto``, for weights and counters."""

_FIELD = descriptor_pb2.FieldDescriptorProto
_MESSAGES: dict[str, dict[str, tuple[int, int | str, bool]]] = {
    # field: number, type (a name is another message), repeated
    "Size": {"size": (1, _FIELD.TYPE_INT64, False)},
    "Shape": {"dim": (2, "Size", True)},
    "Header": {
        "num_shards": (1, _FIELD.TYPE_INT32, False),
        "endianness": (2, _FIELD.TYPE_INT32, False),
    },
    "Entry": {
        "dtype": (1, _FIELD.TYPE_INT32, False),
        "shape": (2, "Shape", False),
        "shard_id": (3, _FIELD.TYPE_INT32, False),
        "offset": (4, _FIELD.TYPE_INT64, False),
        "size": (5, _FIELD.TYPE_INT64, False),
        "crc32c": (6, _FIELD.TYPE_FIXED32, False),
        "slices": (7, _FIELD.TYPE_BYTES, True),
    },
    "Attribute": {
        "full_name": (2, _FIELD.TYPE_STRING, False),
        "checkpoint_key": (3, _FIELD.TYPE_STRING, False),
    },
    "Object": {"attributes": (2, "Attribute", True)},
    "ObjectGraph": {"nodes": (1, "Object", True)},
}


def find_tensorbundle(path: Path) -> Path | None:
    """Return the prefix of the TensorFlow checkpoint that ``path`` stands for, or None.

    ``path`` may be the prefix, one of its files, a folder with one checkpoint or with a file
    ``checkpoint`` that names the newest one, or the folder of a SavedModel.

    Raises:
        WeightsError: a folder holds several checkpoints, and no file names one of them.
    """
    name = _PART.sub("", path.name)
    prefix = path.with_name(name)
    if name and not path.is_dir():
        return prefix if prefix.with_name(name + INDEX_SUFFIX).is_file() else None
    for folder in (path / "variables", path):
        found = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
        newest = folder / "checkpoint"
        if len(found) > 1 and newest.is_file():
            named = re.search(
                r'model_checkpoint_path:\s*"([^"]+)"', newest.read_text("utf-8", "replace")
            )
            last = PurePath(named[1]).name + INDEX_SUFFIX if named else ""
            found = [each for each in found if each.name == last] or found
        if len(found) > 1:
            names = ", ".join(each.name.removesuffix(INDEX_SUFFIX) for each in found[:5])
            raise WeightsError(
                f"The folder '{path.name}' holds {len(found)} TensorFlow checkpoints: {names}.",
                "Pass the path of one of them, without .index.",
            )
        if found:
            return found[0].with_name(found[0].name.removesuffix(INDEX_SUFFIX))
    return None


def read_tensorbundle(prefix: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of a checkpoint, by the names of its variables.

    An object-based checkpoint names a tensor by the objects that lead to it; the names of the
    variables are in its object graph.

    Args:
        prefix: the path without ``.index``.

    Raises:
        WeightsError: a file is missing, truncated, damaged or has an unknown form.
    """
    try:
        return _read(prefix)
    except FileNotFoundError as error:
        raise WeightsError(
            f"The TensorFlow checkpoint '{prefix.name}' lacks its file '{error.filename}'.",
            "Copy all of its files: the .index and every .data-*.",
        ) from error
    except (ValueError, IndexError, struct.error, DecodeError, OverflowError) as error:
        raise WeightsError(
            f"The TensorFlow checkpoint '{prefix.name}' is damaged or incomplete ({error}).",
            "Copy or download it again.",
        ) from error


def _read(prefix: Path) -> dict[str, NDArray[Any]]:
    table = dict(_table(prefix.with_name(prefix.name + INDEX_SUFFIX).read_bytes()))
    header = _message("Header").FromString(table.pop(b""))
    if header.endianness:
        raise WeightsError(
            f"The TensorFlow checkpoint '{prefix.name}' was written on a big-endian machine.",
            "Load it in TensorFlow on an x86 machine and save it again there.",
        )
    shards = [
        np.fromfile(
            prefix.with_name(f"{prefix.name}.data-{number:05d}-of-{header.num_shards:05d}"),
            np.uint8,
        )
        for number in range(header.num_shards)
    ]
    tensors: dict[str, NDArray[Any]] = {}
    names: dict[str, str] = {}
    left = sum(map(len, shards))
    for key, value in table.items():
        name, entry = key.decode(), _message("Entry").FromString(value)
        raw = shards[entry.shard_id][entry.offset : entry.offset + entry.size]
        if len(raw) != entry.size:
            raise ValueError(f"'{name}' reaches past the end of its file")
        left -= len(raw)
        if left < 0:
            raise ValueError("its tensors overlap")
        if name == _OBJECT_GRAPH:
            names = _variable_names(raw.tobytes())
        elif entry.dtype in _DTYPES:
            if entry.slices:
                raise WeightsError(
                    f"The TensorFlow checkpoint '{prefix.name}' stores '{name}' in slices.",
                    "Save it again from a network whose variables are not partitioned.",
                )
            _require_checksum(raw.tobytes(), entry.crc32c, name)
            shape = [each.size for each in entry.shape.dim]
            tensors[name] = raw.view(_DTYPES[entry.dtype]).reshape(shape)
    return {names.get(name) or name: value for name, value in tensors.items()}


def _variable_names(raw: bytes) -> dict[str, str]:
    """Map the keys of an object-based checkpoint to the names of the variables."""
    length, start = _varint(raw, 0)
    # A string tensor holds the lengths, their checksum, and then the bytes.
    start += 4
    graph = _message("ObjectGraph").FromString(raw[start : start + length])
    return {each.checkpoint_key: each.full_name for node in graph.nodes for each in node.attributes}


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a LevelDB table, in order."""
    footer = data[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or not footer.endswith(_MAGIC):
        raise ValueError("its .index file does not have the form that TensorFlow writes")
    # The footer says where the metaindex lies, which is empty here, and then where the index lies.
    _, after = _handle(footer, 0)
    index, _ = _handle(footer, after)
    left = len(data)
    for _, place in _block(data, *index):
        offset, size = _handle(place, 0)[0]
        left -= size
        if left < 0:
            raise ValueError("the blocks of its .index file overlap")
        yield from _block(data, offset, size)


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    end = offset + size
    # After a block come its kind of compression and its checksum.
    kind, checksum = struct.unpack_from("<BI", data, end)
    if kind:
        raise ValueError("its .index file is compressed")
    _require_checksum(data[offset : end + 1], checksum, "a block of its .index file")
    (restarts,) = struct.unpack_from("<I", data, end - 4)
    end -= 4 + 4 * restarts
    key, position = b"", offset
    while position < end:
        shared, position = _varint(data, position)
        added, position = _varint(data, position)
        length, position = _varint(data, position)
        key = key[:shared] + data[position : position + added]
        if len(key) > _LONGEST_KEY:
            raise ValueError(f"it holds a name of {len(key):,} bytes")
        position += added
        yield key, data[position : position + length]
        position += length


def _handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Read where a block lies: return its offset and size, and the position after these numbers."""
    offset, position = _varint(data, position)
    size, position = _varint(data, position)
    return (offset, size), position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
        if shift > 63:
            raise ValueError("it holds a number of more than ten bytes")


def _require_checksum(data: bytes, masked: int, what: str) -> None:
    """Check a CRC-32C, which is stored rotated and offset (leveldb's ``util/crc32c.h``)."""
    rotated = (masked - _MASK_DELTA) & 0xFFFFFFFF
    wanted = ((rotated << 15) | (rotated >> 17)) & 0xFFFFFFFF
    if google_crc32c.value(data) != wanted:
        raise ValueError(f"the checksum of {what} is wrong")


@functools.cache
def _message(name: str) -> Any:
    """Return the class of a message in :data:`_MESSAGES`."""
    file = descriptor_pb2.FileDescriptorProto(
        name="effdet_deploy_tensorbundle.proto", package="tensorbundle", syntax="proto3"
    )
    for message, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message)
        for field, (number, kind, repeated) in fields.items():
            label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            added = declared.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, f".tensorbundle.{kind}"
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorbundle.{name}"))
