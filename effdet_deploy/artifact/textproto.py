"""Reading some fields of protocol buffers that are written as text."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from effdet_deploy.errors import require_package

Fields = Mapping[str, Any]
"""The fields to read, by name; a value is bool, int, float, str, or a mapping of further fields."""


def read_text_proto(text: str, fields: Fields) -> dict[str, list[Any]]:
    """Read some fields of a message and skip all others.

    Returns:
        A list of values for every field, which is empty if the field is absent; a message inside a
        message is again such a dict.

    Raises:
        ValueError: the text is not a protocol buffer, or a value has another type.
        MissingPackageError: protobuf is not installed.
    """
    require_package("google.protobuf", "reading protocol buffers", "export")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    kinds = descriptor_pb2.FieldDescriptorProto
    scalars = {
        bool: kinds.TYPE_BOOL,
        int: kinds.TYPE_INT64,
        float: kinds.TYPE_DOUBLE,
        str: kinds.TYPE_STRING,
    }
    file = descriptor_pb2.FileDescriptorProto(name="fields.proto", syntax="proto2")
    numbers = itertools.count()

    def declare(fields: Fields) -> str:
        """Declare a message of ``fields``, all of which may be repeated."""
        message = file.message_type.add(name=f"Message{next(numbers)}")
        for number, (name, kind) in enumerate(fields.items(), 1):
            field = message.field.add(name=name, number=number, label=kinds.LABEL_REPEATED)
            if isinstance(kind, Mapping):
                field.type, field.type_name = kinds.TYPE_MESSAGE, declare(kind)
            else:
                field.type = scalars[kind]
        return str(message.name)

    whole = declare(fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    parsed = message_factory.GetMessageClass(pool.FindMessageTypeByName(whole))()
    try:
        text_format.Parse(text, parsed, allow_unknown_field=True)
    except text_format.ParseError as error:
        raise ValueError(str(error)) from error
    return _values(parsed, fields)


def _values(message: Any, fields: Fields) -> dict[str, list[Any]]:
    return {
        name: [_values(each, kind) if isinstance(kind, Mapping) else each for each in found]
        for name, kind in fields.items()
        for found in [getattr(message, name)]
    }
