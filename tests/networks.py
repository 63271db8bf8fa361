"""Networks with random weights on which detections mean something, made once a session."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from effdet_deploy.model import EfficientDet, create_model
from effdet_deploy.model.conditioning import randomise

if TYPE_CHECKING:
    from effdet_deploy.model.config import ModelConfig

COVER = ("tf_efficientdet_d0", "tf_efficientdet_lite0", "efficientdet_q1", "cspresdext50pan")
"""Configurations that stand for all 47 where time is short: test_registry.py shows it."""


def parts(config: ModelConfig) -> set[tuple[str, object]]:
    """Return what pyramid and heads are made of, which are ours, where backbones are timm's."""
    fields = ("fpn_name", "pad_type", "head_bn_level_first", "separable_conv", "downsample_type")
    return {(field, getattr(config, field)) for field in fields}


@functools.cache
def conditioned(
    name: str, image_size: int | tuple[int, int] = 128, num_classes: int = 90
) -> EfficientDet:
    """Return a network in evaluation mode; callers must not change it."""
    network = create_model(name, image_size=image_size, num_classes=num_classes)
    randomise(network)
    return network.eval()
