"""Decoding of JSON into frozen dataclasses, with the type and the bounds of every field checked.

A model file may come from anywhere, so no value in it is trusted: a pyramid level of 10^9 would
take all memory, and a threshold that is NaN would silently find nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from effdet_deploy.errors import DataError

REMEDY = "Export the model again with effdet-export."
MAX_TEXT = 1 << 24
"""The most characters of a document; the spec of 90 classes has 6,000."""
MAX_DEPTH = 32
"""The most levels of nested lists and objects in a field that takes any value: deeper ones exhaust
Python's stack when they are copied or written."""
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class Within:
    """The inclusive bounds of a number, or of the length of a text or list."""

    low: float
    high: float


_BOUNDS: dict[type, Within] = {
    int: Within(-(2**53), 2**53),
    float: Within(-1e9, 1e9),
    str: Within(0, 10_000),
    list: Within(0, 100_000),
    dict: Within(0, 100_000),
}
"""The bounds of fields whose annotations do not state bounds."""
_NAMES: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


def parse(text: str, what: str) -> object:
    """Return the JSON value in ``text``; error messages call the text ``what``.

    Raises:
        DataError: the text is too long, nested too deep or not JSON.
    """
    if len(text) > MAX_TEXT:
        raise DataError(
            f"{what} has {len(text):,} characters; at most {MAX_TEXT:,} are allowed.", REMEDY
        )
    try:
        return json.loads(text)
    # Python refuses integers of thousands of digits with a bare ValueError.
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what} is not JSON: {error}.", REMEDY) from error


def decode(value: object, kind: Any, where: str, within: Within | None = None) -> Any:
    """Convert decoded JSON ``value`` to the type ``kind``.

    Args:
        value: a value that :func:`parse` returned.
        kind: a dataclass, or the annotation of one of its fields: a scalar, ``Literal``, ``tuple``,
            ``dict``, ``X | None``, ``Any``, or ``Annotated`` with :class:`Within`.
        where: the path of the field in the document, for messages.
        within: the bounds, where they differ from the default ones of the type.

    Raises:
        DataError: the value has another type or is out of bounds; the message names the field.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return decode(value, arguments[0], where, arguments[1])
    if origin in (types.UnionType, typing.Union):
        chosen = next(option for option in arguments if option is not types.NoneType)
        return None if value is None else decode(value, chosen, where, within)
    if origin is Literal:
        return _expect(value in arguments, value, where, f"one of {', '.join(arguments)}")
    if dataclasses.is_dataclass(kind):
        return _decode_fields(_bounded(value, dict, where), typing.cast("type", kind), where)
    if origin is tuple:
        items = _bounded(value, list, where, within)
        kinds = arguments if arguments[-1] is not Ellipsis else arguments[:1] * len(items)
        _expect(len(items) == len(kinds), items, where, f"a list of {len(kinds)} values")
        return tuple(
            decode(item, kind, f"{where}[]") for item, kind in zip(items, kinds, strict=True)
        )
    if origin is dict:
        return {
            _bounded(key, str, where): decode(
                item, arguments[1], f"{where}.{key:.{_SHOWN_CHARACTERS}}"
            )
            for key, item in _bounded(value, dict, where, within).items()
        }
    return _shallow(value, where) if kind is Any else _bounded(value, kind, where, within)


_hints = functools.cache(functools.partial(typing.get_type_hints, include_extras=True))


def _decode_fields(mapping: dict[str, object], kind: type, where: str) -> object:
    """Make an object of ``kind``; absent fields take their defaults, unknown fields are ignored."""
    fields = dataclasses.fields(kind)
    required = {
        each.name
        for each in fields
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    }
    if missing := sorted(required - mapping.keys()):
        raise DataError(f"The field '{where}' lacks {', '.join(missing)}.", REMEDY)
    hints = _hints(kind)
    return kind(
        **{
            each.name: decode(mapping[each.name], hints[each.name], f"{where}.{each.name}")
            for each in fields
            if each.name in mapping
        }
    )


def _bounded(value: object, kind: type, where: str, within: Within | None = None) -> Any:
    """Check that a number, or the length of a text, list or object, is within its bounds."""
    # JSON writes 4.0 as 4, and to Python true is an int.
    taken = (int, float) if kind is float else kind
    fits = isinstance(value, taken) and (kind is bool or not isinstance(value, bool))
    found = typing.cast("Any", _expect(fits, value, where, _NAMES[kind]))
    if kind is bool:
        return found
    bounds = within or _BOUNDS[kind]
    limits = f"{bounds.low:,} to {bounds.high:,}"
    if kind in (int, float):
        # The bounds are checked before the conversion to float, which cannot hold every int. NaN is
        # out of all bounds.
        _expect(bounds.low <= found <= bounds.high, found, where, f"from {limits}")
        return kind(found)
    _expect(bounds.low <= len(found) <= bounds.high, found, where, f"{limits} long")
    if kind is str:
        _expect(not any("\ud800" <= each <= "\udfff" for each in found), found, where, "Unicode")
    return float(found) if kind is float else found


def _shallow(value: object, where: str) -> object:
    """Check that the value of a field of type Any can be copied, written and read again."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        lists = [list(each.values()) if isinstance(each, dict) else each for each in level]
        level = [item for each in lists if isinstance(each, list) for item in each]
        depth += 1
    if level:
        raise DataError(f"The field '{where}' is nested deeper than {MAX_DEPTH} levels.", REMEDY)
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:  # NaN, infinity, half a surrogate pair
        raise DataError(
            f"The field '{where}' cannot be written as JSON: {error}.", REMEDY
        ) from error
    return value


def _expect(condition: bool, value: object, where: str, wanted: str) -> object:
    if not condition:
        shown = "null" if value is None else repr(value)
        if len(shown) > _SHOWN_CHARACTERS:
            shown = f"{shown[:_SHOWN_CHARACTERS]}…"
        raise DataError(f"The field '{where}' must be {wanted}, not {shown}.", REMEDY)
    return value
