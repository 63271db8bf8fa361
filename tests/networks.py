"""Networks with random weights on which detections mean something, made once a session."""

from __future__ import annotations

import functools

from effdet_deploy.model import EfficientDet, create_model
from effdet_deploy.model.conditioning import randomise


@functools.cache
def conditioned(
    name: str, image_size: int | tuple[int, int] = 128, num_classes: int = 90
) -> EfficientDet:
    """Return a network in evaluation mode; callers must not change it."""
    network = create_model(name, image_size=image_size, num_classes=num_classes)
    randomise(network)
    return network.eval()
