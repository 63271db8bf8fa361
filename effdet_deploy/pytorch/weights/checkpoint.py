"""Checkpoints: recognised by content, loaded without running anything that is in them."""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from effdet_deploy.errors import WeightsError
from effdet_deploy.pytorch.weights.foreign import refuse_foreign_keys, refuse_foreign_path, sniff

if TYPE_CHECKING:
    from pathlib import Path

NESTED_UNDER = ("state_dict_ema", "state_dict", "model_state_dict")
"""Where training loops keep the weights, best first: averaged ones are those worth deploying."""
WRAPPERS = ("module.", "_orig_mod.", "model.")
"""Prefixes of DataParallel, ``torch.compile`` and effdet's benches."""

_BROKEN_FILE = (
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    OSError,
    struct.error,
)
"""What ``torch.load`` lets out for damaged files, besides ``UnpicklingError``."""
_SHOWN = 5


@dataclass(frozen=True)
class CheckpointMetadata:
    """What a safetensors file says about its weights; None where it says nothing."""

    variant: str | None = None
    labels: tuple[str, ...] | None = None
    category_ids: tuple[int, ...] | None = None
    image_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: float32 weights under plain names, without prefixes and anchors.

    ``nested_under`` is the entry of a training checkpoint that the weights were taken from, such
    as ``state_dict_ema``; empty where they were not nested.
    """

    name: str
    state_dict: dict[str, Tensor]
    container: str
    nested_under: str
    metadata: CheckpointMetadata = field(default_factory=CheckpointMetadata)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a torch (zip or legacy) or safetensors checkpoint, whatever its suffix.

    Raises:
        WeightsError: absent, damaged, unsafe, not finite, of another framework, or no weights.
    """
    refuse_foreign_path(path)
    container = sniff(path)
    loaded: object
    if container == "safetensors":
        loaded, metadata = _read_safetensors(path)
    else:
        loaded, metadata = _read_torch(path), CheckpointMetadata()
    nested_under, found = _unwrap(loaded, path.name)
    state_dict = _plain_names(found)
    refuse_foreign_keys(state_dict, path.name)
    state_dict = {key: _as_float32(value) for key, value in state_dict.items()}
    require_finite(state_dict, path.name)
    return Checkpoint(path.name, state_dict, container, nested_under, metadata)


def state_dict_sha256(state_dict: Mapping[str, Tensor]) -> str:
    """Hash weights by name, dtype, shape and bytes: the same for every container.

    BatchNorm's ``num_batches_tracked`` is left out: it is no weight, and some files lack it.
    """
    digest = hashlib.sha256()
    for key in sorted(state_dict):
        if key.endswith("num_batches_tracked"):
            continue
        values = np.ascontiguousarray(state_dict[key].detach().cpu().numpy())
        digest.update(f"{key} {values.dtype.str} {values.shape}\n".encode())
        digest.update(values.data)
    return digest.hexdigest()


def _allowed_globals() -> list[Any]:
    """Return what timm's ``CheckpointSaver`` writes besides tensors, and nothing more."""
    numbers = [np.dtype(code) for code in (*np.typecodes["AllInteger"], *"efd?")]
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]  # noqa: SLF001
    return [
        argparse.Namespace,
        collections.OrderedDict,
        np.dtype,
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        *{type(number) for number in numbers},
    ]


def _read_torch(path: Path) -> object:
    try:
        # An open file: given a path, torch goes by its suffix.
        with path.open("rb") as file, torch.serialization.safe_globals(_allowed_globals()):
            loaded: object = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        _refuse_pickle(path, error)
    except _BROKEN_FILE as error:
        raise _damaged(path, error) from error
    return loaded


def _damaged(path: Path, error: BaseException) -> WeightsError:
    return WeightsError(
        f"The checkpoint '{path.name}' is damaged or incomplete ({_first_line(error)}).",
        "Copy or download it again.",
    )


def _refuse_pickle(path: Path, error: pickle.UnpicklingError) -> NoReturn:
    if "Unsupported operand" in str(error):
        raise _damaged(path, error) from error
    named = re.search(r"GLOBAL (\S+)", str(error))
    what = f"'{named[1]}'" if named else "something that is not a tensor or a plain value"
    raise WeightsError(
        f"The checkpoint '{path.name}' holds {what}, which could run code when it is loaded; "
        "nothing of it was run.",
        "Save only the weights where you trust the file: torch.save(model.state_dict(), ...).",
    ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], CheckpointMetadata]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            written = file.metadata() or {}
    except (SafetensorError, *_BROKEN_FILE) as error:
        raise WeightsError(
            f"The checkpoint '{path.name}' is damaged or incomplete ({_first_line(error)}).",
            "Copy or download it again.",
        ) from error
    return tensors, _decode_metadata(written, path.name)


def _decode_metadata(written: Mapping[str, str], name: str) -> CheckpointMetadata:
    size = written.get("image_size")
    return CheckpointMetadata(
        variant=written.get("variant"),
        labels=_decode_list(written, "labels", str, name),
        category_ids=_decode_list(written, "category_ids", int, name),
        image_size=None if size is None else _decode_size(size, name),
    )


def _decode_list(
    written: Mapping[str, str], key: str, kind: type, name: str
) -> tuple[Any, ...] | None:
    if key not in written:
        return None
    try:
        values = json.loads(written[key])
    except json.JSONDecodeError:
        values = None
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        _refuse_metadata(name, key, f"a JSON list of {kind.__name__}", written[key])
    return tuple(values)


def _decode_size(text: str, name: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        _refuse_metadata(name, "image_size", "HEIGHTxWIDTH", text)
    return int(match[1]), int(match[2])


def _refuse_metadata(name: str, key: str, wanted: str, got: str) -> NoReturn:
    raise WeightsError(
        f"The metadata '{key}' of '{name}' must be {wanted}, not {got!r}.",
        "Write the file again with metadata in that form.",
    )


def _unwrap(loaded: object, name: str) -> tuple[str, Mapping[str, Tensor]]:
    """Find the weights in what was loaded; return where they were and what they are."""
    entries = loaded if isinstance(loaded, Mapping) else {}
    for nested in NESTED_UNDER:
        if _is_state_dict(entries.get(nested)):
            return nested, entries[nested]
    if _is_state_dict(entries):
        return "", entries
    shown = ", ".join(str(key) for key in list(entries)[:_SHOWN]) or type(loaded).__name__
    raise WeightsError(
        f"The checkpoint '{name}' holds no weights; found: {shown}.",
        f"Save the weights themselves, or under one of {', '.join(NESTED_UNDER)}.",
    )


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(key, str) for key in value)
        and all(isinstance(item, Tensor) for item in value.values())
    )


def _plain_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the bench's anchors and every prefix that all other names share."""
    plain = {key: value for key, value in state_dict.items() if not key.endswith("anchors.boxes")}
    while prefix := next((each for each in WRAPPERS if _all_start(plain, each)), ""):
        plain = {key.removeprefix(prefix): value for key, value in plain.items()}
    return plain


def _all_start(state_dict: Mapping[str, Tensor], prefix: str) -> bool:
    return bool(state_dict) and all(key.startswith(prefix) for key in state_dict)


def _as_float32(value: Tensor) -> Tensor:
    return value.detach().float() if value.is_floating_point() else value.detach()


def require_finite(state_dict: Mapping[str, Tensor], name: str) -> None:
    """Refuse weights that training has ruined; raises WeightsError."""
    bad = [key for key, value in state_dict.items() if not bool(torch.isfinite(value).all())]
    if bad:
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise WeightsError(
            f"The checkpoint '{name}' holds NaN or infinite values in "
            f"{', '.join(bad[:_SHOWN])}{more}.",
            "The training diverged: take an earlier checkpoint.",
        )
