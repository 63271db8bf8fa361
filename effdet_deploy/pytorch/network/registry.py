"""The 47 named configurations of effdet 0.4.1, their short names, and configurations between them.

The table is in ``configurations.toml``.
"""

from __future__ import annotations

import functools
import re
import tomllib
from importlib import resources

from effdet_deploy.errors import UnknownNameError, UsageError
from effdet_deploy.pytorch.network.config import ModelConfig
from effdet_deploy.pytorch.network.scaling import MAX_PHI, compound_scale

_RELEASE = "https://github.com/rwightman/efficientdet-pytorch/releases/download/v0.1/"
_SHORT_NAME = re.compile(r"(?:d[0-6](?:_ap)?|d7x?|lite\d+x?)$")
SCALED = "phi:"
"""Prefix of EfficientDet's coefficient φ: ``phi:2.5`` names a size between D2 and D3."""


@functools.cache
def _configs() -> dict[str, ModelConfig]:
    text = resources.files(__package__).joinpath("configurations.toml").read_text(encoding="utf-8")
    configs: dict[str, ModelConfig] = {}
    for name, fields in tomllib.loads(text).items():
        like, file = fields.pop("like", None), fields.pop("file", "")
        base = configs[like] if like else ModelConfig("", "", (512, 512))
        url = _RELEASE + file if file else ""
        configs[name] = base.replace({**fields, "name": name, "url": url})
    return configs


def list_models() -> list[str]:
    """Return the names of all configurations, sorted."""
    return sorted(_configs())


def resolve_name(name: str) -> str:
    """Return the full name: ``d2`` is ``tf_efficientdet_d2``, ``q0`` is ``efficientdet_q0``.

    ``phi:2.5`` is a size between D2 and D3; ``phi:2`` is D2.

    Raises:
        UnknownNameError: the variant is unknown; the message names the nearest ones.
        UsageError: a coefficient is not a number from 0 to 7.
    """
    if name.startswith(SCALED):
        phi = _coefficient(name)
        return f"tf_efficientdet_d{phi:g}" if phi.is_integer() else f"{SCALED}{phi:g}"
    configs = _configs()
    for candidate in (name, _lengthened(name)):
        if candidate in configs:
            return candidate
    short = {full.removeprefix("tf_").removeprefix("efficientdet_") for full in configs}
    known = {each for each in short if _lengthened(each) in configs} | configs.keys()
    raise UnknownNameError("variant", name, sorted(known))


def _lengthened(name: str) -> str:
    """Return a short name with the prefix that its full name would have."""
    return ("tf_efficientdet_" if _SHORT_NAME.match(name) else "efficientdet_") + name


def _coefficient(name: str) -> float:
    """Return the number in ``phi:2.5``."""
    text = name.removeprefix(SCALED)
    try:
        # The configuration's name shows the number, so digits that it would not show are dropped.
        phi = round(float(text), 3)
    except ValueError:
        phi = -1.0
    if not 0 <= phi <= MAX_PHI:
        raise UsageError(
            f"The variant {SCALED}N takes a number N from 0 to {MAX_PHI}, not '{text}'.",
            f"Try {SCALED}2.5, which lies between d2 and d3.",
        )
    return phi


def get_config(name: str) -> ModelConfig:
    """Return the configuration for a full or short name, or for a coefficient.

    It raises the errors of :func:`resolve_name`.
    """
    full = resolve_name(name)
    if not full.startswith(SCALED):
        return _configs()[full]
    phi = _coefficient(full)
    scale = compound_scale(phi)
    # Fields that do not scale are taken from the next smaller variant: those of D6 include fusion
    # without weights.
    return _configs()[f"tf_efficientdet_d{int(phi)}"].replace(
        {
            "name": full,
            "url": "",
            "backbone_name": f"tf_efficientnet_b{scale.backbone}",
            "image_size": scale.image_side,
            "fpn_channels": scale.fpn_channels,
            "fpn_cell_repeats": scale.fpn_cell_repeats,
            "box_class_repeats": scale.box_class_repeats,
        }
    )
