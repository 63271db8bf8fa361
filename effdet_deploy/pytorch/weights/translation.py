"""Translation of another project's checkpoint to our names, for the variant that it fits."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

import numpy as np
import torch

from effdet_deploy.errors import UsageError, WeightsError
from effdet_deploy.pytorch.network.efficientdet import EfficientDet
from effdet_deploy.pytorch.network.registry import get_config, resolve_name
from effdet_deploy.pytorch.weights.fitting import infer_num_classes
from effdet_deploy.pytorch.weights.origins.renaming import Layout

if TYPE_CHECKING:
    from torch import Tensor

    from effdet_deploy.pytorch.weights.checkpoint import Checkpoint
    from effdet_deploy.pytorch.weights.origins.renaming import Origin

_COUNTER = ".num_batches_tracked"
_HEADS = re.compile(r"predict|header|Predictor")


def in_our_names(
    checkpoint: Checkpoint, origin: Origin, variant: str | None
) -> tuple[Checkpoint, str]:
    """Translate a checkpoint for ``variant``, or for the one variant of its project that it fits.

    Raises:
        WeightsError: the checkpoint fits no variant, or it does not fit ``variant``.
        UsageError: the checkpoint fits several variants, so the user must choose.
    """
    arrays = {name: value.numpy() for name, value in checkpoint.state_dict.items()}
    heads = {name: value for name, value in arrays.items() if _HEADS.search(name)}
    head_state = _as_state(origin.translate(heads, Layout((), 0))[0])
    num_classes = infer_num_classes(head_state)
    channels = {
        value.shape[1] for name, value in head_state.items() if name.endswith("conv_pw.weight")
    }
    names = origin.variants if variant is None else (resolve_name(variant),)
    found: dict[str, Checkpoint] = {}
    for name in names:
        config = get_config(name).replace({"num_classes": num_classes or 1, **origin.overrides})
        if variant is None and channels != {config.fpn_channels}:
            continue
        with torch.device("meta"):
            wanted = {
                key: value.shape
                for key, value in EfficientDet(config).state_dict().items()
                if not key.endswith(_COUNTER)
            }
        try:
            translated, unknown = origin.translate(arrays, Layout.of(wanted))
        except IndexError:
            continue
        unused = [
            key for key in translated if key not in wanted and re.fullmatch(origin.optional, key)
        ]
        state = _as_state({key: translated[key] for key in translated if key not in unused})
        shapes = {key: value.shape for key, value in state.items() if not key.endswith(_COUNTER)}
        if variant is not None or shapes == wanted:
            found[name] = dataclasses.replace(
                checkpoint,
                state_dict=state,
                ignored=(*checkpoint.ignored, *unknown, *unused),
            )
    if not found:
        of = f"{resolve_name(variant)}" if variant else "any variant that the project has"
        raise WeightsError(
            f"The weights of {origin.name} in '{checkpoint.name}' do not fit {of}.",
            "Pass --variant with the network that was trained, or export from the project itself.",
        )
    if len(found) > 1:
        raise UsageError(
            f"'{checkpoint.name}' does not say which variant it belongs to.",
            f"It looks like {' or '.join(found)}: pass --variant.",
        )
    ((name, translated_checkpoint),) = found.items()
    return translated_checkpoint, name


def _as_state(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
