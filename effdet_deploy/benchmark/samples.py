"""The pictures on which models are timed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from effdet_deploy.detection.letterbox import to_input
from effdet_deploy.synthetic import structured_pictures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import DetectorSpec

SEED = 512
"""Seed of the pictures on which models are timed; no export is traced or verified with them."""


def sample_batch(spec: DetectorSpec, batch: int) -> NDArray[Any]:
    """Return ``batch`` seeded pictures in the form that the model takes."""
    takes = spec.input
    pictures = structured_pictures(batch, *takes.taken_size, SEED, takes.channels)
    return to_input(pictures, takes)
