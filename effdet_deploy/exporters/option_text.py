"""Parsing of batches, sizes and channel values from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

Number = TypeVar("Number", int, float)
_MOST_DIGITS = 18
"""The most digits of a number: Python refuses thousands of digits with an error of its own."""


def whole_number(text: str) -> int | None:
    """Return the whole number if the text consists of digits; None for any other text."""
    is_number = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    return int(text) if is_number else None


def parse_batch(text: str) -> BatchSpec:
    """Read ``1``, ``1..8`` or ``1,4,8`` (minimum, optimum, maximum).

    Raises:
        UsageError: the text has another form.
    """
    separator = "," if "," in text else ".."
    try:
        numbers = [int(part) for part in text.split(separator)]
    except ValueError:
        numbers = []
    match numbers:
        case [size]:
            return BatchSpec(size, size, size)
        case [low, high] if separator == "..":
            return BatchSpec(low, low, high)
        case [low, best, high]:
            return BatchSpec(low, best, high)
    raise UsageError(
        f"--batch takes N, MIN..MAX or MIN,OPT,MAX, not '{text}'.", "Try --batch 1..8."
    )


def parse_candidates(text: str) -> int | None:
    """Read ``auto`` as None, or a number from 1.

    Raises:
        UsageError: the text has another form.
    """
    if text == "auto":
        return None
    if not (number := whole_number(text)):
        raise UsageError(
            f"--candidates takes auto or a whole number from 1, not '{text}'.",
            "Leave --candidates out for auto.",
        )
    return number


def parse_image_size(text: str, option: str = "--image-size") -> tuple[int, int]:
    """Read ``512`` or ``384x640`` (height x width, in pixels), the value of ``option``.

    Raises:
        UsageError: the text has another form.
    """
    sides = [whole_number(part) for part in text.lower().split("x")]
    height, width = sides[0], sides[-1]
    if height is None or width is None or len(sides) > 2:
        raise UsageError(
            f"{option} takes whole pixels as N or HxW, not '{text}'.",
            f"Try {option} 512 or {option} 384x640.",
        )
    return height, width


def parse_channels(option: str, text: str, kind: Callable[[str], Number]) -> tuple[Number, ...]:
    """Read ``0.5`` for all channels, or ``0.485,0.456,0.406`` with a value per channel.

    Raises:
        UsageError: the text has another form.
    """
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"{option} takes one number for all channels or one per channel, not '{text}'.",
            f"Try {option} 0 or {option} 0,0,0.",
        ) from error
