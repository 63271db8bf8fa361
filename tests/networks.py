"""Networks whose random weights are scaled so that scores depend on the picture.

A network is made once per session.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import timm

from effdet_deploy.pytorch.network import EfficientDet, create_model
from effdet_deploy.pytorch.network.random_weights import randomize

if TYPE_CHECKING:
    from effdet_deploy.pytorch.network.config import ModelConfig

PYRAMIDS = ("tf_efficientdet_d0", "tf_efficientdet_lite0", "efficientdet_q1", "cspresdext50pan")
"""A few configurations that have, together, every kind of pyramid and head."""
COVER = (*PYRAMIDS, "cspdarkdet53m", "cspresdet50", "mobiledetv3_large", "resdet50")
"""Configurations that stand for all 47 where time is short; test_registry.py shows that they do."""


def parts(config: ModelConfig) -> set[tuple[str, object]]:
    """Return the kinds of parts that a network has; a backbone's kind is its module in timm."""
    fields = (
        *("fpn_name", "pad_type", "head_bn_level_first", "separable_conv", "downsample_type"),
        *("act_type", "head_act_type"),
    )
    family = timm.models.model_entrypoint(config.backbone_name).__module__
    return {("backbone family", family)} | {(field, getattr(config, field)) for field in fields}


@functools.cache
def conditioned(
    name: str, image_size: int | tuple[int, int] = 128, num_classes: int = 90
) -> EfficientDet:
    """Return a network in evaluation mode; callers must not change it."""
    network = create_model(name, image_size=image_size, num_classes=num_classes)
    randomize(network)
    return network.eval()
