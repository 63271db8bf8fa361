"""The 47 named configurations of effdet 0.4.1, and the short names.

The table is ``configurations.toml``.
"""

from __future__ import annotations

import functools
import re
import tomllib
from importlib import resources

from effdet_deploy.errors import UnknownNameError
from effdet_deploy.pytorch.network.config import ModelConfig

_RELEASE = "https://github.com/rwightman/efficientdet-pytorch/releases/download/v0.1/"
_SHORT_NAME = re.compile(r"(?:d[0-6](?:_ap)?|d7x?|lite\d+x?)$")


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
    """Return a full name: ``d2`` is ``tf_efficientdet_d2``, ``q0`` is ``efficientdet_q0``.

    Raises:
        UnknownNameError: there is no such variant; the nearest names are given.
    """
    configs = _configs()
    for candidate in (name, _lengthened(name)):
        if candidate in configs:
            return candidate
    short = {full.removeprefix("tf_").removeprefix("efficientdet_") for full in configs}
    known = {each for each in short if _lengthened(each) in configs} | configs.keys()
    raise UnknownNameError("variant", name, sorted(known))


def _lengthened(name: str) -> str:
    """Return the full name that ``name`` stands for where it is a short one."""
    return ("tf_efficientdet_" if _SHORT_NAME.match(name) else "efficientdet_") + name


def get_config(name: str) -> ModelConfig:
    """Return the registered configuration of a full or short name; raises as resolve_name."""
    return _configs()[resolve_name(name)]
