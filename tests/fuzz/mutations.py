"""Damage files as failing disks, editors and attackers do; a seed decides how."""

from __future__ import annotations

import json
import random
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Parts = dict[str, bytes]

ODD_TEXT = (
    *(b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"-Infinity", b"1.5", b'""', b"[]", b"{}"),
    *(b"1" + b"0" * 400, b"9" * 5000, b"9223372036854775808", b"1000000000", b"65536"),
    *(b"[" * 50_000, b'{"a":' * 20_000, b"[[[[", b"\\ud800", b"\xed\xa0\x80", b"\xff\xfe"),
    *(b"&a ", b"*a", b"- &a [*a]", b"!!python/object:os.system x", b"<<: *a", b"\t", b"{ { {"),
    *(b"../x", b"/etc/passwd", b"a/" * 3000, b"\x00", b"\xef\xbb\xbf", b"\x1b[2J", b"x" * 5000),
)
"""Pieces of text that replace other pieces of a file."""
ODD_BYTES = (
    *(struct.pack("<I", each) for each in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)),
    *(struct.pack("<Q", each) for each in (0, 1 << 31, 1 << 32, (1 << 63) - 1, (1 << 64) - 1)),
    *(struct.pack(">I", each) for each in (1, 0x7FFFFFFF, 0xFFFF0000)),
    *(b"\xff" * 9 + b"\x01", b"\xff" * 11, b"\x80" * 4 + b"\x08", b"\x00" * 64, b"\xff" * 64),
    *(struct.pack("<f", each) for each in (float("nan"), float("inf"), 1e38, -1e-38)),
)
"""The smallest and largest numbers of several types, and odd ones, as the bytes in a file."""
ODD_VALUES = (
    *(None, True, False, 0, -1, 1, 3, 2.5, 1e308, 10**400, 2**63, -(2**31), 100_000_000),
    *(float("nan"), float("inf"), "", "x", "\ud800", "a" * 5000, "../x", "a/" * 3000, "\0"),
    *([], {}, [[]], [None], [[1, 2], 3], {"id": 1}, [1, 2, 3, 4], [0] * 300, {"a": {"b": {}}}),
    json.loads("[" * 400 + "]" * 400),
)
"""Values that replace other values in a JSON document."""
_NUMBER = re.compile(rb"-?\d+(\.\d+)?")
_LONGEST = 1 << 17


@dataclass(frozen=True)
class Sample:
    """A valid file, which is to be damaged.

    Attributes:
        parts: the pieces of the file; either one piece or the whole file is damaged.
        pack: joins the pieces to the whole file, with correct checksums and lengths.
        beside: the content of other files that belong to it, by their names.
    """

    parts: Parts
    pack: Callable[[Parts], bytes] = lambda parts: parts[""]
    beside: Parts = field(default_factory=dict)


def whole(content: bytes | str, **beside: bytes) -> Sample:
    """Return a sample of one part."""
    data = content.encode() if isinstance(content, str) else content
    return Sample({"": data}, beside=beside)


def damaged(sample: Sample, others: list[Sample], seed: str) -> bytes:
    """Return a damaged copy of ``sample``, always the same copy for the same seed.

    Pieces of ``others`` may be spliced into it.
    """
    chance = random.Random(seed)
    part = chance.choice([None, *sample.parts])
    if part is None or len(sample.parts) == 1:
        donor = chance.choice(others)
        return _changed(sample.pack(sample.parts), donor.pack(donor.parts), chance)
    donor = chance.choice([each for each in others if part in each.parts])
    return sample.pack(
        sample.parts | {part: _changed(sample.parts[part], donor.parts[part], chance)}
    )


def _changed(data: bytes, donor: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        data = chance.choice(_CHANGES)(data, donor, chance)[:_LONGEST]
    return data


def _span(data: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randint(0, len(data))
    return start, min(len(data), start + chance.choice((0, 1, 2, 4, 8, 32, 200, len(data))))


def _flip(data: bytes, _donor: bytes, chance: random.Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _set(data: bytes, _donor: bytes, chance: random.Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x7B))
    return bytes(changed)


def _cut(data: bytes, _donor: bytes, chance: random.Random) -> bytes:
    return data[: chance.randint(0, len(data))]


def _drop(data: bytes, _donor: bytes, chance: random.Random) -> bytes:
    start, end = _span(data, chance)
    return data[:start] + data[end:]


def _repeat(data: bytes, _donor: bytes, chance: random.Random) -> bytes:
    start, end = _span(data, chance)
    times = chance.choice((2, 2, 3, 50, 2000))
    return data[:end] + data[start:end] * min(times, _LONGEST // (end - start + 1)) + data[end:]


def _splice(data: bytes, donor: bytes, chance: random.Random) -> bytes:
    start, end = _span(data, chance)
    first, last = _span(donor, chance)
    return data[:start] + donor[first:last] + data[end:]


def _odd_bytes(data: bytes, _donor: bytes, chance: random.Random) -> bytes:
    start, odd = chance.randint(0, len(data)), chance.choice(ODD_BYTES)
    return data[:start] + odd + data[start + chance.choice((0, len(odd))) :]


def _odd_text(data: bytes, _donor: bytes, chance: random.Random) -> bytes:
    start, end = _span(data, chance)
    return data[:start] + chance.choice(ODD_TEXT) + data[end:]


def _odd_number(data: bytes, _donor: bytes, chance: random.Random) -> bytes:
    numbers = list(_NUMBER.finditer(data[:100_000]))
    if not numbers:
        return _odd_bytes(data, _donor, chance)
    found = chance.choice(numbers)
    return data[: found.start()] + chance.choice(ODD_TEXT) + data[found.end() :]


def _odd_value(data: bytes, donor: bytes, chance: random.Random) -> bytes:
    """Replace one value of a JSON document; the result is valid JSON."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return chance.choice(_DAMAGE)(data, donor, chance)
    places = list(_places([document], []))
    holder, key = chance.choice(places)
    other, place = chance.choice(places)
    match chance.randrange(4):
        case 0 if isinstance(holder, dict):
            del holder[key]
        case 1:
            holder[key] = other[place]
        case 2 if isinstance(holder, dict):
            holder[str(chance.choice(ODD_VALUES))[:50]] = holder[key]
        case _:
            holder[key] = chance.choice(ODD_VALUES)
    try:
        return json.dumps(places[0][0][0]).encode()
    except (ValueError, RecursionError):  # The value was put inside itself.
        return data


def _places(holder: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    keys = range(len(holder)) if isinstance(holder, list) else list(holder)
    for key in keys:
        found.append((holder, key))
        if isinstance(holder[key], dict | list) and len(found) < 10_000:
            _places(holder[key], found)
    return found


_DAMAGE = (_flip, _set, _cut, _drop, _repeat, _splice, _odd_bytes, _odd_text, _odd_number)
_CHANGES = (*_DAMAGE, *(_odd_value,) * len(_DAMAGE))
