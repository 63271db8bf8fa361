"""At its end an export says which file was compared, and what to do with it next."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from effdet_deploy.artifact.spec import EngineSpec, PrecisionSpec
from effdet_deploy.exporters import Artifact
from effdet_deploy.reports.delivered import next_step, render_export, what_was_compared
from tests.onnx_models import detector_spec, with_input

COPY_ENGINE = "copy d0.engine and d0.engine.json to the machine"
COPY_ONNX = "copy d0.onnx and d0.onnx.json to the machine"
BUILT_HERE = EngineSpec("tensorrt-rtx", "1.7")
ON_A_GPU = EngineSpec("tensorrt", "10.16", "NVIDIA L4", "8.9")


def artifact(name: str, engine: EngineSpec | None = None, **output) -> Artifact:
    spec = dataclasses.replace(detector_spec(**output), engine=engine)
    return Artifact(Path("models", name), spec, None, 1)


FOR_OPENVINO = dataclasses.replace(
    artifact("d0.onnx"),
    spec=dataclasses.replace(detector_spec(), precision=PrecisionSpec("int8", "openvino")),
)
FOR_DEEPSTREAM = dataclasses.replace(
    artifact("d0.onnx"), spec=with_input(detector_spec(), kind="float255", frame_size=(720, 1280))
)


@pytest.mark.parametrize(
    ("made", "step"),
    [
        (artifact("d0.onnx"), "effdet-deploy detect models/d0.onnx PICTURE.jpg"),
        (FOR_OPENVINO, "effdet-deploy detect models/d0.onnx PICTURE.jpg --backend openvino"),
        (FOR_DEEPSTREAM, "effdet-deploy bundle deepstream models/d0.onnx DIR"),
        (
            artifact("d0.engine", ON_A_GPU),
            "effdet-deploy detect models/d0.engine PICTURE.jpg",
        ),
        (
            artifact("d0.engine", BUILT_HERE),
            f"{COPY_ENGINE} with the GPU and run: effdet-deploy detect d0.engine PICTURE.jpg",
        ),
        (
            artifact("d0.engine", dataclasses.replace(ON_A_GPU, traits=("strip-plan",))),
            "refit d0.engine with its weights (TensorRT's Refitter) before you run it",
        ),
        (
            artifact("d0.onnx", nms="plugin"),
            f"{COPY_ONNX} with TensorRT and run: effdet-deploy build d0.onnx d0.engine",
        ),
    ],
)
def test_the_next_step_is_one_that_works(made, step):
    assert next_step(made) == step


@pytest.mark.parametrize(
    ("engine", "title"),
    [
        (None, "verification"),
        (ON_A_GPU, "verification of the engine"),
        (BUILT_HERE, "verification of the ONNX file"),
        (dataclasses.replace(ON_A_GPU, traits=("strip-plan",)), "verification of the ONNX file"),
    ],
)
def test_the_report_says_which_file_was_compared(engine, title):
    assert what_was_compared(artifact("d0.engine", engine)) == title


@pytest.mark.parametrize("assumed", [(), ("The mean is effdet's.",)])
def test_what_is_assumed_is_followed_by_the_options_that_change_it(assumed):
    made = artifact("d0.onnx")
    console = Console(file=io.StringIO(), width=400)
    spec = dataclasses.replace(made.spec, assumed=assumed)
    console.print(render_export(dataclasses.replace(made, spec=spec), 1.0))
    said = console.file.getvalue()
    assert ("[?] assumed, because the weights do not say: The mean is effdet's." in said) == bool(
        assumed
    )
    assert ("say so with --resize, --interpolation, --trained-on, --mean" in said) == bool(assumed)
