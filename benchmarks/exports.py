"""The files that are timed: our graph in its forms, and effdet's as its users export it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from kept import code_digest, finished
from PIL import Image

from effdet_deploy import ExportOptions, export
from effdet_deploy.artifact.modelfile import read_spec
from effdet_deploy.artifact.spec import BatchSpec, PrecisionSpec
from effdet_deploy.detection.letterbox import to_input
from effdet_deploy.exporters.lowering import lower_precision
from effdet_deploy.precision.int8.calibration import MIN_IMAGES
from effdet_deploy.synthetic import structured_pictures

if TYPE_CHECKING:
    from cases import Case, Weights
    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import InputSpec, NmsKind, Target

CALIBRATION_SEED = 7
LARGEST_BATCH = 8
"""That one export serves; a larger batch has its own."""


def naive_onnx(case: Case, weights: Weights) -> Path:
    """Export effdet as its users do: raw heads, one call, one fixed batch size."""
    path = case.directory / f"{case.stem}_naive_b{case.batch}.onnx"
    if not path.exists():
        example = torch.randn(case.batch, 3, *weights.pictures.shape[1:3])
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            finished(path) as partly,
        ):
            warnings.simplefilter("ignore")
            torch.onnx.export(weights.theirs, (example,), partly, dynamo=True, external_data=False)
    return path


def our_file(
    case: Case, weights: Weights, part: str, suffix: str = ".onnx", nms: NmsKind = "static"
) -> Path:
    """Export our graph for a range of batch sizes, the whole of it or the network alone."""
    largest = max(case.batch, LARGEST_BATCH)
    beyond = "" if largest == LARGEST_BATCH else f"_to_{largest}"
    own_nms = "" if nms == "static" else f"_nms_{nms}"
    name = f"{case.stem}_ours_{part.replace(' ', '_')}{beyond}{own_nms}_{code_digest()}{suffix}"
    path = case.directory / name
    if not path.exists():
        batch = BatchSpec(1, 1, largest)
        options = ExportOptions(batch=batch, verify=case.verify, nms=nms)
        if part == "network":
            options = dataclasses.replace(options, input_kind="normalized", nms="none")
        export(weights.ours, path, options)
    return path


def our_input(case: Case, weights: Weights, part: str) -> NDArray[Any]:
    """Return the pictures as our file for ``part`` takes them."""
    return to_input(weights.pictures, _spec(case, weights, part))


def _spec(case: Case, weights: Weights, part: str) -> InputSpec:
    return read_spec(our_file(case, weights, part), "onnx").input


def int8_file(
    case: Case, weights: Weights, part: str, target: Target, nms: NmsKind = "static"
) -> Path:
    """Lower our FP32 file to INT8 for an engine, calibrated on pictures that are not timed.

    It is lowered and not verified: random weights say nothing of what INT8 costs in accuracy.
    """
    source = our_file(case, weights, part, nms=nms)
    path = source.with_name(f"{source.stem}_int8_{target}.onnx")
    if not path.exists():
        staging = case.directory / f"{path.stem}.lowering"
        staging.mkdir(exist_ok=True)
        staged = Path(shutil.copyfile(source, staging / path.name))
        spec = read_spec(source, "onnx")
        spec = dataclasses.replace(spec, precision=PrecisionSpec("int8", target))
        calibration = calibration_folder(case, weights)
        options = ExportOptions(precision="int8", target=target, calibration=calibration)
        lower_precision(staged, spec, options, lambda _stage: None)
        staged.replace(path)
    return path


def calibration_folder(case: Case, weights: Weights) -> Path:
    """Write pictures like those that are timed, of another seed."""
    height, width = weights.ours.config.image_size
    folder = case.directory / f"calibration_{height}x{width}"
    if not folder.exists():
        with finished(folder) as partly:
            partly.mkdir(exist_ok=True)
            made = structured_pictures(MIN_IMAGES, height, width, CALIBRATION_SEED)
            for index, picture in enumerate(made):
                Image.fromarray(picture).save(partly / f"{index}.png")
    return folder
