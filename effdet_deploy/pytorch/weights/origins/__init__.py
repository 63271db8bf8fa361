"""The projects that train EfficientDets and whose checkpoints can be read, one file per project.

A project's file maps the names of its variables by rules, and states how its network differs from
effdet's and which facts about its training no checkpoint contains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from effdet_deploy.errors import UnknownNameError
from effdet_deploy.pytorch.weights.origins import automl, tf_object_detection, zylo117

if TYPE_CHECKING:
    from collections.abc import Collection

    from effdet_deploy.pytorch.weights.origins.renaming import Origin

EFFDET = "effdet"
ORIGINS = {each.name: each for each in (zylo117.ORIGIN, automl.ORIGIN, tf_object_detection.ORIGIN)}


def origin_of(names: Collection[str], chosen: str | None = None) -> Origin | None:
    """Return the project whose variables have these ``names``, or None for effdet.

    Args:
        names: the names of the weights, without prefixes.
        chosen: a name of :data:`ORIGINS` or ``effdet``, which decides regardless of the names.

    Raises:
        UnknownNameError: the project is unknown.
    """
    if chosen is not None:
        if chosen not in (EFFDET, *ORIGINS):
            raise UnknownNameError("origin", chosen, (EFFDET, *ORIGINS))
        return ORIGINS.get(chosen)
    return next((each for each in ORIGINS.values() if each.recognizes(names)), None)
