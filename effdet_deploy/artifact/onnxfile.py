"""Reading what an ONNX file says about itself; the ``onnx`` package is not needed.

The base install does not have that package. Only the structure is read (versions, metadata,
operators, names of external files), by walking through the protobuf wire format:
https://protobuf.dev/programming-guides/encoding. If this walk does not end exactly at the last
byte, the file is truncated or is not an ONNX file.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from effdet_deploy.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Span = tuple[int, int]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10
# protobuf's own limit for nested messages.
_MAX_DEPTH = 100

# Field numbers of onnx.proto.
_MODEL_IR, _MODEL_GRAPH, _MODEL_OPSET, _MODEL_METADATA, _MODEL_FUNCTION = 1, 7, 8, 14, 25
_NODE_OPERATOR, _NODE_DOMAIN = 4, 7
_TENSOR_EXTERNAL = 13
_FIELDS_INSIDE: dict[str, dict[int, str]] = {
    "model": {_MODEL_GRAPH: "graph", _MODEL_FUNCTION: "function"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {
        **dict.fromkeys((5, 10), "tensor"),
        **dict.fromkeys((6, 11), "graph"),
        **dict.fromkeys((22, 23), "sparse tensor"),
    },
    # The values and indices of a sparse tensor are tensors, its dims are not.
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""For each kind of message, the numbers of the fields that lead to nodes or tensors, and the kind
of message that such a field holds."""


@dataclass(frozen=True)
class OnnxFile:
    """What an ONNX file says about itself.

    Attributes:
        ir_version: the version of the file format.
        opsets: the opset version of each domain; ``""`` is ONNX's own.
        metadata: the model's key-value properties.
        operators: how often each operator occurs; operators of other domains are named
            ``domain::Operator``.
        external: the names of the data files it refers to.
    """

    ir_version: int
    opsets: dict[str, int]
    metadata: dict[str, str]
    operators: dict[str, int]
    external: tuple[str, ...]


def read_onnx(path: Path) -> OnnxFile:
    """Read what ``path`` says about itself.

    Raises:
        ModelFileError: not an ONNX file, truncated or damaged.
    """
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4)
def _read(path: Path, _mtime: int, _size: int) -> OnnxFile:
    """Read a file, or return the result of an earlier call if the file has not changed since."""
    with walking_through(path) as walk:
        return walk.model()


@contextlib.contextmanager
def walking_through(path: Path) -> Iterator[Walk]:
    """Open an ONNX file for reading; errors inside the ``with`` block become a ModelFileError."""
    try:
        with (
            path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            yield Walk(data)
    except ValueError as error:
        raise ModelFileError(
            f"'{path}' is not a readable ONNX model: {error}.",
            "The file is truncated, damaged or something else; get it again or export it again.",
        ) from error


@dataclass
class Walk:
    """One pass over the file; collects operators and external names on the way."""

    data: mmap.mmap
    operators: Counter[str] = field(default_factory=Counter)
    external: dict[str, None] = field(default_factory=dict)

    def model(self) -> OnnxFile:
        """Walk through everything; raises ValueError where it is damaged."""
        ir_version = 0
        opsets: dict[str, int] = {}
        metadata: dict[str, str] = {}
        found: set[str] = set()
        for number, value in self.fields((0, len(self.data))):
            if isinstance(value, int):
                ir_version = value if number == _MODEL_IR else ir_version
            elif number == _MODEL_OPSET:
                domain, version = self.opset(value)
                opsets[domain] = version
            elif number == _MODEL_METADATA:
                metadata.update([self.entry(value)])
            elif (kind := _FIELDS_INSIDE["model"].get(number)) is not None:
                found.add(kind)
                self.message(kind, value, 1)
        if "graph" not in found or not ir_version:
            raise ValueError("it has no graph")
        return OnnxFile(
            ir_version, opsets, metadata, dict(sorted(self.operators.items())), tuple(self.external)
        )

    def message(self, kind: str, span: Span, depth: int) -> None:
        """Read a message and all messages inside it."""
        if depth > _MAX_DEPTH:
            raise ValueError("its graphs are nested too deeply")
        said: dict[int, Span] = {}
        for number, value in self.fields(span):
            if isinstance(value, int):
                continue
            said[number] = value
            if number in _FIELDS_INSIDE[kind]:
                self.message(_FIELDS_INSIDE[kind][number], value, depth + 1)
            elif kind == "tensor" and number == _TENSOR_EXTERNAL:
                key, name = self.entry(value)
                self.external.update({name: None} if key == "location" else {})
        if kind == "node":
            operator, domain = (
                self.text(said.get(each, (0, 0))) for each in (_NODE_OPERATOR, _NODE_DOMAIN)
            )
            own = domain in ("", "ai.onnx")
            self.operators[operator if own else f"{domain}::{operator}"] += 1

    def opset(self, span: Span) -> tuple[str, int]:
        """Return the domain and version of an opset; ONNX's own domain is ""."""
        domain, version = "", 0
        for number, value in self.fields(span):
            if number == 1 and not isinstance(value, int):
                domain = self.text(value)
            elif number == 2 and isinstance(value, int):
                version = value
        return ("" if domain == "ai.onnx" else domain), version

    def entry(self, span: Span) -> tuple[str, str]:
        """Return the key and value of a metadata entry."""
        pair = {number: value for number, value in self.fields(span) if isinstance(value, tuple)}
        return self.text(pair.get(1, (0, 0))), self.text(pair.get(2, (0, 0)))

    def text(self, span: Span) -> str:
        """Return a span of bytes as text."""
        return self.data[span[0] : span[1]].decode()

    def fields(self, span: Span) -> Iterator[tuple[int, int | Span]]:
        """Yield (field number, integer or span of bytes) for each field of a message."""
        position, end = span
        while position < end:
            tag, position = self.varint(position, end)
            number, wire = tag >> 3, tag & 7
            if number == 0:
                raise ValueError("it holds a field with number 0")
            if wire == _VARINT:
                value, position = self.varint(position, end)
                yield number, value
                continue
            length = {_FIXED64: 8, _FIXED32: 4}.get(wire)
            if wire == _BYTES:
                length, position = self.varint(position, end)
            if length is None:
                raise ValueError(f"it holds a field of the unknown wire type {wire}")
            if position + length > end:
                raise ValueError(f"it ends {position + length - end} bytes too early")
            yield number, (position, position + length)
            position += length

    def varint(self, position: int, end: int) -> tuple[int, int]:
        """Return the varint at a position, and the position behind it."""
        value = 0
        for index in range(_MAX_VARINT_BYTES):
            if position + index >= end:
                raise ValueError("it ends in the middle of a number")
            byte = self.data[position + index]
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value, position + index + 1
        raise ValueError("it holds a number of more than ten bytes")
