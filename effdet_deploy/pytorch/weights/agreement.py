"""What a checkpoint, or a file beside it, says of the configuration, against what was asked for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from effdet_deploy.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from effdet_deploy.pytorch.network.config import ModelConfig

_RELATIVE, _ABSOLUTE = 1e-5, 1e-6
"""What is lost where one file writes √2 and another 1.4142135."""


def settle(
    config: ModelConfig, said: Mapping[str, Any], chosen: Collection[str], where: str
) -> tuple[ModelConfig, tuple[str, ...]]:
    """Bring ``config`` to what is said elsewhere.

    Args:
        config: what options, metadata and the variant make.
        said: fields and their values, in any form that a config takes.
        chosen: the fields that the user named. An image size that was named is kept, because
            weights do not depend on it; anything else that was named must agree.
        where: what says so, in the plural: ``the anchors in 'last.pth'``.

    Returns:
        The configuration, and a sentence for each field that differs from what was there.

    Raises:
        WeightsError: an option says something else.
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
            notes.append(f"{name} is {theirs}: {where} say so, not {ours}.")
        elif name == "image_size":
            notes.append(f"image_size is {ours} as asked; {where} are of {theirs}.")
        else:
            raise WeightsError(
                f"{name} is {ours} by the config overrides, and {theirs} by {where}.",
                f"Leave {name} out to take the checkpoint's.",
            )
    # A fill that was chosen does not follow a mean that is said.
    kept = {"fill_color": config.fill_color} if "fill_color" in chosen else {}
    return config.replace({**taken, **kept}), tuple(notes)


def _is_same(one: object, other: object) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    return one == other
