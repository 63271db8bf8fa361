"""Settling differences between the requested configuration and what a checkpoint states."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from effdet_deploy.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from effdet_deploy.pytorch.network.config import ModelConfig

_RELATIVE, _ABSOLUTE = 1e-5, 1e-6
"""Rounding errors, as when one file holds √2 and another holds 1.4142135."""


def settle(
    config: ModelConfig, said: Mapping[str, Any], chosen: Collection[str], where: str
) -> tuple[ModelConfig, tuple[str, ...]]:
    """Change ``config`` to the values that a checkpoint states.

    Args:
        config: the configuration so far, from options, metadata and the variant.
        said: the stated fields and their values, in any form that a config accepts.
        chosen: the fields that the user named. A named image size is kept, because weights do not
            depend on it; other named fields must agree.
        where: the source of the values, in the plural: ``the anchors in 'last.pth'``.

    Returns:
        The configuration, and a sentence for every field that was changed.

    Raises:
        WeightsError: a value contradicts an option.
        UsageError: a value is out of its range.
    """
    stated = config.replace(said)
    notes, taken = [], {}
    for name in said:
        theirs = getattr(stated, name)
        ours = config.octaves if name == "octave_scales" else getattr(config, name)
        if _is_same(theirs, ours):
            continue
        if name not in chosen:
            taken[name] = theirs
            notes.append(
                f"{name} is {theirs}, taken from {where}; without them it would be {ours}."
            )
        elif name == "image_size":
            notes.append(f"image_size is {ours}, as requested; {where} are for {theirs}.")
        else:
            raise WeightsError(
                f"{name} is {ours} as an option, but {theirs} according to {where}.",
                f"Leave {name} out to take the checkpoint's value.",
            )
    # A fill that the user named does not follow a mean that the checkpoint states.
    kept = {"fill_color": config.fill_color} if "fill_color" in chosen else {}
    return config.replace({**taken, **kept}), tuple(notes)


def _is_same(one: object, other: object) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    return one == other
