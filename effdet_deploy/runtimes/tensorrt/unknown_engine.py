"""What can be told of an engine that comes without a sidecar and is trusted all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from effdet_deploy.artifact.spec import (
    DETECTION_OUTPUTS,
    AnchorSpec,
    BatchSpec,
    ClassSpec,
    DetectorSpec,
    InputSpec,
    OutputSpec,
)
from effdet_deploy.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from effdet_deploy.artifact.tensors import TensorInfo

_UNNAMED_CLASSES = 1000
"""An engine does not say how many classes it tells apart; more than this is not plausible."""
_PICTURE_RANK = 4


def guessed_spec(
    name: str,
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    profile: Sequence[tuple[int, ...]],
) -> DetectorSpec:
    """Return a spec that fits an engine whose graph does the whole job, from uint8 to boxes.

    Boxes are taken for xyxy; classes go by their numbers.

    Raises:
        ModelFileError: it is another kind of engine, whose numbers mean nothing without a sidecar.
    """
    shape = inputs[0].shape if len(inputs) == 1 else ()
    whole_job = len(shape) == _PICTURE_RANK and inputs[0].dtype == np.dtype(np.uint8)
    rows = {each.name: each.shape for each in outputs}
    if not whole_job or not set(DETECTION_OUTPUTS) <= rows.keys():
        raise ModelFileError(
            f"'{name}' has no sidecar, and its tensors do not say how pictures are prepared for it "
            f"or what comes out: {', '.join(map(str, (*inputs, *outputs)))}.",
            "Put its sidecar beside it; only uint8 pictures in, detections out, need none.",
        )
    depth = rows["detection_boxes"][1] or 1
    sizes = [each[0] for each in profile] or [shape[0] or 1] * 3
    return DetectorSpec(
        variant="unknown",
        input=InputSpec(height=shape[1] or 0, width=shape[2] or 0),
        anchors=AnchorSpec(3, 7, 3, ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4)), 4.0),
        classes=tuple(ClassSpec(str(index), index + 1) for index in range(_UNNAMED_CLASSES)),
        output=OutputSpec(candidates=depth, max_detections=depth, score_threshold=0.0),
        batch=BatchSpec(sizes[0], sizes[len(sizes) // 2], sizes[-1]),
    )
