"""Checks before an engine, which is native code, is deserialized.

This module also derives a spec for a trusted engine that has no sidecar (the JSON file beside it).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from effdet_deploy.artifact.modelfile import read_sidecar, require_engine_of
from effdet_deploy.artifact.spec import (
    DETECTION_OUTPUTS,
    AnchorSpec,
    BatchSpec,
    DetectorSpec,
    InputSpec,
    OutputSpec,
    even_octaves,
)
from effdet_deploy.errors import ModelFileError
from effdet_deploy.files import sha256_bytes, sidecar_path
from effdet_deploy.runtimes.tensorrt.library import NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from effdet_deploy.artifact.spec import EngineSpec
    from effdet_deploy.artifact.tensors import TensorInfo
    from effdet_deploy.runtimes.gpu import Gpu

_AMPERE = 8.0
"""The lowest compute capability of NVIDIA's Ampere GPUs."""
_PICTURE_RANK = 4


def trusted_spec(path: Path, plan: bytes, *, trust: bool) -> DetectorSpec | None:
    """Return the spec in the sidecar, after checking that the sidecar describes this engine.

    Returns:
        The spec, or None if there is no sidecar and ``trust`` is true.

    Raises:
        ModelFileError: the engine is not the one that the sidecar describes, or there is no sidecar
            and ``trust`` is false.
    """
    sidecar = read_sidecar(path)
    if sidecar is None or sidecar.spec is None:
        if trust:
            return None
        raise ModelFileError(
            f"The engine '{path}' has no sidecar '{sidecar_path(path).name}'; an engine is native "
            "code, which cannot be verified without its sidecar.",
            "Put the sidecar beside the engine under this name, or pass --trust if you know where "
            "the engine comes from.",
        )
    require_engine_of(sidecar, path, sha256_bytes(plan))
    return sidecar.spec


def require_runnable(path: Path, built: EngineSpec, version: str, gpu: Gpu) -> None:
    """Check that an engine was built for this release of TensorRT and this model of GPU.

    Raises:
        ModelFileError: the engine was built for another release or GPU, or has no weights.
    """
    traits, name = built.traits, NAMES.get(built.backend, built.backend)
    rebuild = (
        f"Build it on this machine from its ONNX file: effdet-deploy build model.onnx '{path.name}'"
    )
    # Version-compatible engines run under later releases of the same major version.
    here, there = ([int(part) for part in re.findall(r"\d+", x)] for x in (version, built.version))
    is_later = "version-compatible" in traits and here[:1] == there[:1] and here >= there
    if built.version != version and not is_later:
        raise ModelFileError(
            f"'{path}' was built for {name} {built.version}, but this is {name} {version}.",
            f"{rebuild}; or install {name} {built.version}.",
        )
    if "hardware-compatible=ampere+" in traits:
        fits = float(gpu.compute_capability) >= _AMPERE
    elif "hardware-compatible=same-compute-capability" in traits:
        fits = gpu.compute_capability == built.compute_capability
    else:
        fits = (gpu.name, gpu.compute_capability) == (built.gpu, built.compute_capability)
    # TensorRT-RTX compiles an engine for the GPU only when it is loaded.
    if built.backend != "tensorrt-rtx" and built.gpu and not fits:
        raise ModelFileError(
            f"'{path}' was built for {built.gpu} (compute capability "
            f"{built.compute_capability}), but this is {gpu}.",
            f"{rebuild}.",
        )
    if built.is_stripped:
        raise ModelFileError(
            f"'{path}' was built with --strip-plan and holds no weights.",
            "Refit it with TensorRT's refitter first, or build it without --strip-plan.",
        )


def spec_without_sidecar(
    name: str,
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    profile: Sequence[tuple[int, ...]],
) -> DetectorSpec:
    """Derive from the tensors the spec of an engine that takes uint8 pictures and gives boxes.

    The boxes are taken to be xyxy. The tensors do not name the classes, so the spec has no classes.

    Raises:
        ModelFileError: the engine has other tensors, whose meaning only a sidecar can tell.
    """
    shape = inputs[0].shape if len(inputs) == 1 else ()
    takes_pictures = len(shape) == _PICTURE_RANK and inputs[0].dtype == np.dtype(np.uint8)
    rows = {each.name: each.shape for each in outputs}
    if not takes_pictures or not set(DETECTION_OUTPUTS) <= rows.keys():
        raise ModelFileError(
            f"'{name}' has no sidecar, and its tensors do not say how pictures must be prepared "
            f"or what the outputs mean: {', '.join(map(str, (*inputs, *outputs)))}.",
            "Put the sidecar beside the engine; only an engine that takes uint8 pictures and gives "
            "boxes can run without a sidecar.",
        )
    depth = rows["detection_boxes"][1] or 1
    sizes = [each[0] for each in profile] or [shape[0] or 1] * 3
    return DetectorSpec(
        variant="unknown",
        input=InputSpec(height=shape[1] or 0, width=shape[2] or 0),
        # The graph has decoded the boxes already, so nothing reads these anchors.
        anchors=AnchorSpec(3, 7, even_octaves(3), ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4)), 4.0),
        classes=(),
        output=OutputSpec(candidates=depth, max_detections=depth, score_threshold=0.0),
        batch=BatchSpec(sizes[0], sizes[len(sizes) // 2], sizes[-1]),
    )
