"""Reading of checkpoints, which are recognized by content and whose code is never run."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from effdet_deploy.errors import WeightsError
from effdet_deploy.files import BROKEN_ARCHIVE
from effdet_deploy.pytorch.weights.containers import (
    read_hdf5,
    read_legacy,
    read_numpy,
    read_zip,
)
from effdet_deploy.pytorch.weights.foreign import (
    damaged,
    refuse_foreign_keys,
    refuse_foreign_path,
    sniff,
)
from effdet_deploy.pytorch.weights.hyperparameters import hyperparameters_in
from effdet_deploy.pytorch.weights.origins.tensorbundle import find_tensorbundle, read_tensorbundle
from effdet_deploy.pytorch.weights.searching import (
    Unusable,
    class_names_in,
    entries_of,
    find_networks,
    table_of,
)
from effdet_deploy.pytorch.weights.unpickling import ForbiddenNameError, StandIn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from effdet_deploy.pytorch.weights.origins.settings import Settings
    from effdet_deploy.pytorch.weights.searching import Candidate, Found

NESTED_UNDER = ("state_dict_ema", "state_dict", "model_state_dict")
"""Keys under which training loops keep the weights of unknown networks, best first."""
WRAPPERS = ("module.", "_orig_mod.", "model.")
"""Prefixes of DataParallel, ``torch.compile`` and effdet's benches around an unknown network."""

_BROKEN_FILE: tuple[type[Exception], ...] = (
    SafetensorError,
    pickle.UnpicklingError,
    *BROKEN_ARCHIVE,
)
_SHOWN = 5
_MOST_NUMBERS = 1 << 29
"""The most numbers in a network. Tensors may share their bytes in a file, but not after they are
converted to float32, so a small file could fill the memory."""
_NETWORK = ("backbone.", "fpn.", "class_net.", "box_net.")
_NO_LAYERS = ("anchors.", "anchor_labeler.", "loss_fn.")
"""Prefixes of tensors that effdet's benches hold beside the network."""


@dataclass(frozen=True)
class CheckpointMetadata:
    """What a file states about its weights; fields that it does not state are None."""

    variant: str | None = None
    labels: tuple[str, ...] | None = None
    category_ids: tuple[int, ...] | None = None
    image_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint: float32 weights with plain names, without prefixes and anchors.

    Attributes:
        name: the file's name.
        state_dict: the weights.
        container: the kind of file.
        nested_under: the keys that lead to the weights, such as ``state_dict_ema``, joined by dots;
            empty if they were not nested.
        metadata: what the file states about the weights.
        anchors: ``[A,4]`` yxyx pixels, if an effdet bench stored its anchors beside the weights.
        ignored: names of tensors that are stored beside the weights and were not used.
        settings: settings of the network that are stored beside the weights; None without settings.
        class_names: class names that a training tool stored beside the weights; there may be more
            than the network has classes, for example if the background counts.
    """

    name: str
    state_dict: dict[str, Tensor]
    container: str
    nested_under: str
    metadata: CheckpointMetadata = field(default_factory=CheckpointMetadata)
    anchors: Tensor | None = None
    ignored: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    settings: Settings | None = None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of torch, safetensors, numpy, Keras or TensorFlow, whatever its suffix is.

    The network may be anywhere in the file; averaged weights are preferred.

    Raises:
        WeightsError: the file is absent, damaged, unsafe, of another framework, has no weights, or
            has values that are not finite.
    """
    prefix = find_tensorbundle(path)
    if prefix is None:
        refuse_foreign_path(path)
    container = "TensorFlow checkpoint" if prefix else sniff(path)
    metadata, written = CheckpointMetadata(), None
    loaded: object
    try:
        if prefix is not None:
            loaded = read_tensorbundle(prefix)
        elif container == "HDF5":
            loaded = read_hdf5(path)
        elif container == "safetensors":
            loaded, metadata, written = _read_safetensors(path)
        elif container == "numpy archive":
            loaded = read_numpy(path)
        else:
            loaded = read_zip(path) if container == "torch zip" else read_legacy(path)
        networks = find_networks(loaded)
        place, tensors, beside = _chosen(networks, path.name) or _unrecognized(loaded, path.name)
    except ForbiddenNameError as error:
        raise WeightsError(
            f"The checkpoint '{path.name}' holds '{error.name}', which could run code when it is "
            "loaded; no part of the file was run.",
            "If you trust the file, load it in torch and save only the weights: "
            "torch.save(model.state_dict(), ...).",
        ) from error
    except _BROKEN_FILE as error:
        raise damaged(path, error) from error
    refuse_foreign_keys(tensors, path.name)
    numbers = sum(each.numel() for each in tensors.values() if isinstance(each, Tensor))
    if numbers > _MOST_NUMBERS:
        raise WeightsError(
            f"The network in '{path.name}' has {numbers:,} weights, but the limit is "
            f"{_MOST_NUMBERS:,}.",
            "Save only the weights of an EfficientDet; D7x has 77 million.",
        )
    state_dict = {key: _as_float32(key, value, path.name) for key, value in tensors.items()}
    require_finite(state_dict, path.name)
    anchors = next((beside[each] for each in beside if each.endswith("anchors.boxes")), None)
    return Checkpoint(
        path.name,
        state_dict,
        container,
        place,
        metadata,
        anchors.float() if isinstance(anchors, Tensor) else None,
        tuple(beside),
        class_names_in(loaded),
        hyperparameters_in(loaded if written is None else written, path.name),
    )


def _read_safetensors(
    path: Path,
) -> tuple[dict[str, Tensor], CheckpointMetadata, dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        written = file.metadata() or {}
    fields: dict[str, Any] = {"variant": written.get("variant")}
    for key, (form, parse) in _METADATA.items():
        try:
            fields[key] = parse(written[key]) if key in written else None
        except ValueError as error:
            raise WeightsError(
                f"The metadata '{key}' of '{path.name}' must be {form}, not {written[key]!r}.",
                "Write the file again with metadata in this form.",
            ) from error
    unread = {key: _json_or_text(text) for key, text in written.items() if key not in fields}
    return tensors, CheckpointMetadata(**fields), unread


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _json_list(kind: type, text: str) -> tuple[Any, ...]:
    values = json.loads(text)
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise ValueError(text)
    return tuple(values)


def _height_and_width(text: str) -> tuple[int, int]:
    size = re.fullmatch(r"(\d+)x(\d+)", text)
    if size is None:
        raise ValueError(text)
    return int(size[1]), int(size[2])


_METADATA: dict[str, tuple[str, Callable[[str], tuple[Any, ...]]]] = {
    "labels": ("a JSON list of str", partial(_json_list, str)),
    "category_ids": ("a JSON list of int", partial(_json_list, int)),
    "image_size": ("HEIGHTxWIDTH", _height_and_width),
}
"""Key in a safetensors file's metadata → the form of its value, and the function that reads it."""


def _chosen(
    networks: list[Candidate], name: str
) -> tuple[str, dict[str, Found], dict[str, Found]] | None:
    """Return the best network's keys joined by dots, its weights and its other tensors, or None."""
    if not networks:
        return None
    best = networks[0]
    rivals = [
        f"'{each.prefix}'"
        for each in networks
        if (each.is_averaged, each.place) == (best.is_averaged, best.place)
    ]
    if len(rivals) > 1:
        raise WeightsError(
            f"The checkpoint '{name}' holds {len(rivals)} networks side by side, under "
            f"{', '.join(rivals)}.",
            "Save only the network to export: torch.save(model.state_dict(), ...).",
        )
    # Names without a dot are numbers of the training; a bench's anchors and loss are not layers.
    layers = {
        key: value
        for key, value in best.tensors.items()
        if key.startswith(_NETWORK) or ("." in key and not key.startswith(_NO_LAYERS))
    }
    others = {key: value for key, value in best.tensors.items() if key not in layers}
    return best.place, layers, {**best.beside, **others}


def _unrecognized(loaded: object, name: str) -> tuple[str, dict[str, Found], dict[str, Found]]:
    """Take the weights of an unknown network, so that a message can say what does not fit."""
    entries = entries_of(loaded) if isinstance(loaded, StandIn | dict) else {}
    for nested in (*NESTED_UNDER, ""):
        table = entries.get(nested) if nested else loaded
        tensors = table_of(table)
        if tensors and len(tensors) == len(entries_of(table)):
            break
    else:
        shown = ", ".join(list(entries)[:_SHOWN]) or type(loaded).__name__
        raise WeightsError(
            f"The checkpoint '{name}' holds no weights. It holds: {shown}.",
            f"Save a dict of tensors, alone or under one of the keys {', '.join(NESTED_UNDER)}.",
        )
    anchors = {key: value for key, value in tensors.items() if key.endswith("anchors.boxes")}
    plain = {key: value for key, value in tensors.items() if key not in anchors}
    while plain and (
        prefix := next((each for each in WRAPPERS if all(k.startswith(each) for k in plain)), "")
    ):
        plain = {key.removeprefix(prefix): value for key, value in plain.items()}
    return nested, plain, anchors


def _as_float32(key: str, value: Found, name: str) -> Tensor:
    if isinstance(value, Unusable) or value.is_complex():
        kind = value.kind if isinstance(value, Unusable) else "complex"
        raise WeightsError(
            f"The tensor '{key}' of '{name}' is {kind}.",
            "Save the network as dense floating-point tensors on the CPU.",
        )
    value = value.detach()
    return value.float() if value.is_floating_point() else value.clone()


def require_finite(state_dict: Mapping[str, Tensor], name: str) -> None:
    """Refuse weights with NaN or infinite values; raises WeightsError."""
    bad = [key for key, value in state_dict.items() if not bool(torch.isfinite(value).all())]
    if bad:
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise WeightsError(
            f"The checkpoint '{name}' holds NaN or infinite values in "
            f"{', '.join(bad[:_SHOWN])}{more}.",
            "The training has diverged: take an earlier checkpoint.",
        )


def state_dict_sha256(state_dict: Mapping[str, Tensor]) -> str:
    """Hash weights by name, dtype, shape and bytes; the container of the file does not matter.

    BatchNorm's ``num_batches_tracked`` is left out: it is not a weight, and some files lack it.
    """
    digest = hashlib.sha256()
    for key in sorted(state_dict):
        if key.endswith("num_batches_tracked"):
            continue
        values = np.ascontiguousarray(state_dict[key].detach().cpu().numpy())
        digest.update(f"{key} {values.dtype.str} {values.shape}\n".encode())
        digest.update(values.data)
    return digest.hexdigest()
