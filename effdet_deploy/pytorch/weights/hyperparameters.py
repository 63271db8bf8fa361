"""Arguments and hyperparameters that a training stored beside the weights of its network.

Lightning keeps ``hyper_parameters``, timm keeps ``args``, other loops keep a config or a few
numbers. All of these are read like weights: no code in them is run.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from effdet_deploy.errors import UnknownNameError, UsageError
from effdet_deploy.pytorch.network.config import ModelConfig
from effdet_deploy.pytorch.network.registry import resolve_name
from effdet_deploy.pytorch.weights.origins.settings import Settings
from effdet_deploy.pytorch.weights.searching import attributes_of, entries_of
from effdet_deploy.pytorch.weights.unpickling import StandIn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PLACES = (
    *("hyper_parameters", "hparams", "hyperparameters", "args", "config", "cfg", "opt", "params"),
    *("settings", "model_args", "model_config", "train_config"),
)
"""Keys under which trainings keep their arguments."""
_DEPTH = 3
"""How deep tables of arguments, and lists in them, may be nested."""
_VARIANT = ("model_name", "model", "arch", "architecture", "variant", "name", "config_name")
"""Arguments that may name the variant."""
_OTHER_NAMES = {
    "img_size": "image_size",
    "imgsz": "image_size",
    "input_size": "image_size",
    "n_classes": "num_classes",
}
"""Other projects' name of an argument → our config field."""
_NOT_READ = {
    *("name", "url", "backbone_name", "drop_path_rate", "norm_momentum", "feature_location"),
    *("backbone_indices", "interpolation", "resize"),
}
"""Fields that have no meaning here, or that mean something else in other projects."""
_FIELDS = {each.name for each in dataclasses.fields(ModelConfig)} - _NOT_READ
_ANY = ModelConfig("", "", (512, 512))
"""A configuration with which the form of values is checked."""
_MAX_ENTRIES = 10_000
"""The most entries of a table of arguments."""
_LONGEST = 64
"""The most characters of a name, and the most numbers of a list, in a configuration."""
_LARGEST_NUMBER = 1e6
"""The largest absolute value of a number that is read as a setting."""


def hyperparameters_in(loaded: Any, name: str) -> Settings | None:
    """Return what a checkpoint states about its network beside the weights, or None.

    Args:
        loaded: the content of the checkpoint.
        name: the file's name.
    """
    stated: dict[str, dict[str, tuple[Any, str]]] = {}
    for place, table in _tables(loaded, "", 0, set()):
        for key, value in table.items():
            # Except in effdet's own configuration, "name" is the name of the run.
            if key == "name" and "backbone_name" not in table:
                continue
            for field, form in _read(key, value):
                stated.setdefault(field, {}).setdefault(repr(form), (form, place + key))
    if not stated:
        return None
    fields = {field: next(iter(found.values()))[0] for field, found in stated.items()}
    twice = {
        field: " and ".join(f"{form} ({where})" for form, where in found.values())
        for field, found in stated.items()
        if len(found) > 1
    }
    variant = None if "variant" in twice else fields.get("variant")
    fields.pop("variant", None)
    return Settings(name, fields, variant, is_inside=True, contradictions=twice)


def _tables(
    node: Any, place: str, depth: int, seen: set[int]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every table of arguments in ``node`` once, with the keys that lead to it."""
    if depth > _DEPTH or id(node) in seen:
        return
    seen.add(id(node))
    table = _plain_table(node)
    if not 0 < len(table) <= _MAX_ENTRIES:
        return
    yield place, table
    for key in _PLACES:
        if key in table:
            yield from _tables(table[key], f"{place}{key}.", depth + 1, seen)


def _plain_table(node: Any) -> dict[str, Any]:
    if isinstance(node, str) and node.startswith("{"):
        try:
            node = json.loads(node)
        except (ValueError, RecursionError):
            return {}
    if not isinstance(node, StandIn | dict):
        return {}
    attributes = attributes_of(node)
    # OmegaConf keeps its entries in an attribute, inside an object of its own.
    if isinstance(content := attributes.get("_content"), StandIn | dict):
        return entries_of(content)
    return {**attributes, **entries_of(node)}


def _plain(value: Any, depth: int = 0) -> Any:
    """Return numbers, text and tuples of them; None for anything else."""
    if depth > _DEPTH:
        return None
    if isinstance(value, StandIn):
        attributes = attributes_of(value)
        if "_val" in attributes:
            return _plain(attributes["_val"], depth + 1)
        inside = attributes.get("_content", value.members)
        value = inside.members if isinstance(inside, StandIn) else inside
    # A list may hold another list many times: deeper lists are limited to fewer values.
    if isinstance(value, list | tuple) and 0 < len(value) <= _LONGEST >> 2 * depth:
        return tuple(_plain(each, depth + 1) for each in value)
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and abs(value) <= _LARGEST_NUMBER else None


def _read(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the config field that an argument states, with its value as a config holds it."""
    field = _OTHER_NAMES.get(key, key)
    if key not in _VARIANT and field not in _FIELDS:
        return
    value = _plain(value)
    if key in _VARIANT and isinstance(value, str):
        try:
            yield "variant", resolve_name(value)
        except UnknownNameError:
            return
    if field not in _FIELDS or value is None:
        return
    # One number is not a mean of three channels; and a fill of 'mean' follows from the mean.
    if (field in ("mean", "std") and not isinstance(value, tuple)) or value == "mean":
        return
    if field == "image_size":
        sides = value[-2:] if isinstance(value, tuple) else (value, value)
        # Only effdet's own field defines which of two sides is the height.
        if len(sides) != 2 or (sides[0] != sides[1] and key != "image_size"):
            return
        value = sides
    if field == "fill_color" and isinstance(value, int):
        value = (value,) * 3
    try:
        stated = getattr(_ANY.replace({field: value}), field)
    except UsageError:
        return
    # Values on the scale of 0 to 255 belong to another preprocessing.
    if field not in ("mean", "std") or max(stated) <= 1:
        yield field, stated
