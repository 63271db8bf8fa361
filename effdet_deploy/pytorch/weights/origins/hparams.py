"""Settings of automl: ``hparams.yaml`` (a user's changes) and ``config.yaml`` (all settings).

The keys are those of ``hparams_config.py`` in google/automl.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from effdet_deploy.artifact.spec import MAX_CLASSES
from effdet_deploy.errors import WeightsError
from effdet_deploy.files import parse_yaml
from effdet_deploy.pytorch.weights.origins.settings import Settings, SettingsFile

if TYPE_CHECKING:
    from collections.abc import Callable

_PREFIX = "efficientdet-"
_UNLIKE = {
    "conv_after_downsample": "convolves after it has made a level coarser",
    "survival_prob": "adds shortcuts to the repeats of its heads",
}
"""Settings that change the network but not the names of its variables, and how they do so."""


def _whole(value: Any) -> int:
    return int(value)


def _flag(value: str) -> bool:
    return {"true": True, "false": False}[value.lower()]


def _size(value: Any) -> tuple[int, int]:
    """Read a side, a text WIDTHxHEIGHT, or a list [height, width]; return (height, width)."""
    if isinstance(value, list):
        height, width = map(int, value)
        return height, width
    sides = [int(side) for side in value.lower().split("x")]
    return sides[-1], sides[0]


def _aspects(value: Any) -> tuple[float | tuple[float, ...], ...]:
    return tuple(
        tuple(map(float, each)) if isinstance(each, list) else float(each) for each in value
    )


def _colors(value: Any) -> tuple[float, ...]:
    """Read one number or three on the 0-255 scale, and return three on the 0-1 scale."""
    three = value if isinstance(value, list) else [value] * 3
    return tuple(round(float(each) / 255, 6) for each in three)


_FIELDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "num_classes": ("num_classes", _whole),
    "image_size": ("image_size", _size),
    "min_level": ("min_level", _whole),
    "max_level": ("max_level", _whole),
    "num_scales": ("num_scales", _whole),
    "aspect_ratios": ("aspect_ratios", _aspects),
    "anchor_scale": ("anchor_scale", float),
    "act_type": ("act_type", str),
    "box_class_repeats": ("box_class_repeats", _whole),
    "fpn_cell_repeats": ("fpn_cell_repeats", _whole),
    "fpn_num_filters": ("fpn_channels", _whole),
    "separable_conv": ("separable_conv", _flag),
    "apply_bn_for_resampling": ("apply_resample_bn", _flag),
    "conv_bn_act_pattern": ("conv_bn_relu_pattern", _flag),
    "mean_rgb": ("mean", _colors),
    "stddev_rgb": ("std", _colors),
}
"""automl's key → our field, and the function that reads the value; YAML's scalars are text here."""


def read_hparams(source: str, text: str) -> Settings:
    """Read the settings of an automl training; raises as :class:`SettingsFile` says."""
    document = parse_yaml(text, "reading the settings beside the weights")
    if not isinstance(document, dict):
        raise TypeError("it holds no keys")
    stated = {
        key: value
        for key, value in document.items()
        if not isinstance(value, str) or value.lower() not in ("", "null", "~", "none")
    }
    for key, what in _UNLIKE.items():
        if str(stated.get(key, "false")).lower() not in ("false", "0", "0.0"):
            raise WeightsError(
                f"According to {key} in '{source}', the network {what}, but effdet's does not.",
                "Export it with automl itself, or train without this setting.",
            )
    fields = {}
    for key, (field, read) in _FIELDS.items():
        if key in stated:
            try:
                fields[field] = read(stated[key])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{key} is {stated[key]}") from error
    names = stated.get("label_map")
    labels = None
    if isinstance(names, dict) and "num_classes" in fields:
        labels = _labels(names, fields["num_classes"])
    name = str(stated.get("name", ""))
    variant = name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else None
    return Settings(source, fields, variant, labels)


def _labels(names: dict[str, Any], num_classes: int) -> tuple[str, ...]:
    """Return one name per class: automl numbers classes from 1, and 0 is the background."""
    if not 0 < num_classes <= MAX_CLASSES:
        raise ValueError(f"num_classes is {num_classes}")
    named = {int(number): str(name) for number, name in names.items()}
    if not set(named) <= set(range(num_classes + 1)):
        raise ValueError(f"label_map numbers a class above num_classes, {num_classes}")
    return tuple(named.get(number, f"unused {number}") for number in range(1, num_classes + 1))


SETTINGS = SettingsFile(("hparams.yaml", "config.yaml"), read_hparams)
