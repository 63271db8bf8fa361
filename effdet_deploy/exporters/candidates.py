"""How many boxes enter NMS: the smallest choice that gives the same rows as effdet's 5000."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from effdet_deploy.artifact.placement import box_limits
from effdet_deploy.artifact.spec import EFFDET_CANDIDATES, PLUGIN_CANDIDATES, enough_candidates
from effdet_deploy.parity.side import ask, reach_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import DetectorSpec, NmsForm
    from effdet_deploy.exporters.options import ExportOptions
    from effdet_deploy.parity.side import Side
    from effdet_deploy.progress import Progress

MATRIX_CANDIDATES = 1000
"""Above this number, comparing all boxes with each other takes longer than comparing every box only
with those that are kept."""


def first_candidates(options: ExportOptions, rows: int) -> int:
    """Return how many boxes the options let enter NMS; pictures can show that fewer suffice."""
    if options.nms == "plugin":
        return PLUGIN_CANDIDATES
    return max(options.candidates or EFFDET_CANDIDATES, rows)


def settle_candidates(
    spec: DetectorSpec,
    options: ExportOptions,
    reference: Side | None,
    images: Sequence[NDArray[np.uint8]],
    users_own: int,
    progress: Progress,
) -> tuple[DetectorSpec, tuple[str, ...]]:
    """Choose how many boxes enter NMS if the user did not, and the form of the NMS.

    Args:
        spec: the spec of the artifact, with :func:`first_candidates`.
        options: the options of the export.
        reference: the reference that the artifact will be compared with; None without verification.
        images: the pictures that it will be compared on.
        users_own: how many of ``images`` are the user's own.
        progress: called before every picture that the reference is run on.

    Returns:
        The spec to trace, and notes for the user.
    """
    most, rows = spec.output.candidates, spec.output.max_detections
    chosen, said = most, ""
    if options.nms == "plugin" or options.candidates is not None:
        pass
    elif reference is None:
        said = (
            f"{most} candidates enter NMS, as in effdet: without verification it is unknown "
            "whether fewer would give the same detections."
        )
    else:
        needed = 0
        for index, image in enumerate(images, 1):
            progress(f"counting NMS candidates in eager PyTorch: picture {index} of {len(images)}")
            needed = max(needed, reach_of(ask(reference, [image])[0]))
        chosen = min(most, enough_candidates(max(needed, rows)))
        where = f"your {users_own} pictures" if users_own else f"{len(images)} generated pictures"
        said = f"{chosen} candidates give the same detections as {most} on {where}."
    output = dataclasses.replace(
        spec.output, candidates=chosen, nms_form=_nms_form(spec, options, chosen)
    )
    return dataclasses.replace(spec, output=output), (said,) if said else ()


def _nms_form(spec: DetectorSpec, options: ExportOptions, candidates: int) -> NmsForm:
    """Return the form of the static NMS; on a GPU, one matrix needs the fewest kernels."""
    is_large = candidates > MATRIX_CANDIDATES and options.nms_steps is None
    # Greedy NMS would fill rows with boxes outside of a frame, and boxes inside would get no row.
    if is_large and options.nms == "static" and box_limits(spec.input) is None:
        return "greedy"
    return "matrix" if options.runtime == "tensorrt" else "blocks"
