"""Whose network a checkpoint holds: one file for each project that trains EfficientDets.

A project's file states the names of its variables as rules, what its network has that effdet's has
not, and what its training does that no checkpoint says.
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
    """Return the project that variables of these ``names`` are of, or None for effdet.

    Args:
        names: of the weights, without prefixes.
        chosen: a name of :data:`ORIGINS` or ``effdet``, which is taken whatever the names are.

    Raises:
        UnknownNameError: there is no such project.
    """
    if chosen is not None:
        if chosen not in (EFFDET, *ORIGINS):
            raise UnknownNameError("origin", chosen, (EFFDET, *ORIGINS))
        return ORIGINS.get(chosen)
    return next((each for each in ORIGINS.values() if each.recognizes(names)), None)
