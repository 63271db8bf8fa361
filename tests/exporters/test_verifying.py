"""Which runtime verifies an export, and what is said if the target's runtime is not installed."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from effdet_deploy.errors import DeviceError, EffdetDeployWarning
from effdet_deploy.exporters import ExportOptions, export, verifying
from effdet_deploy.runtimes.instructions import describe_kernels, saturating_layers
from effdet_deploy.synthetic import structured_pictures

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index, pixels in enumerate(structured_pictures(8, 128, 128, 3)):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def int8(pictures: Path, target: str, **fields: object) -> ExportOptions:
    return ExportOptions(
        weights="random",
        image_size=(128, 128),
        precision="int8",
        target=target,
        calibration=pictures,
        **fields,
    )


@pytest.fixture
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def absent(name: str, *arguments: object) -> object:
        return None if name == "openvino" else find(name, *arguments)

    monkeypatch.setattr(importlib.util, "find_spec", absent)


@pytest.fixture
def on_avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "instruction_set", lambda _runtime: "AVX2")


def test_a_file_for_openvino_is_compared_in_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    options = ExportOptions(weights="random", image_size=(128, 128), target="openvino")
    report = export("lite0", tmp_path / "model.onnx", options).report
    assert report is not None
    assert report.passed
    assert report.computed_by == describe_kernels("openvino")
    assert report.computed_by.startswith("OpenVINO 20")
    assert report.not_run == ""


def test_a_missing_openvino_is_named_before_the_work_and_in_the_report(
    tmp_path: Path, without_openvino: None
) -> None:
    options = ExportOptions(weights="random", image_size=(128, 128), target="openvino")
    said: list[str] = []
    with pytest.warns(
        EffdetDeployWarning, match=r"pip install 'effdet-deploy\[openvino\]'"
    ) as seen:
        report = export("lite0", tmp_path / "model.onnx", options, said.append).report
    assert len(seen) == 1
    assert report is not None
    assert report.computed_by.startswith("ONNX Runtime ")
    assert "OpenVINO, for which the file is laid out, is not installed" in report.not_run


@pytest.mark.parametrize(
    ("int8_range", "instruction", "told"),
    [
        ("portable", None, "portable range: the file is right on every processor"),
        ("full", "vnni", "needs a processor with VNNI"),
    ],
)
def test_the_range_of_int8_is_in_the_spec_and_a_note_says_what_it_means(
    pictures: Path, tmp_path: Path, int8_range: str, instruction: str | None, told: str
) -> None:
    options = int8(pictures, "openvino", int8_range=int8_range, verify=False)
    artifact = export("lite0", tmp_path / "int8.onnx", options)
    precision = artifact.spec.precision
    assert (precision.int8_range, precision.instruction) == (int8_range, instruction)
    assert any(told in note for note in artifact.notes)
    assert bool(saturating_layers(artifact.path)) is (int8_range == "full")


def test_a_file_for_tensorrt_is_compared_in_onnx_runtime_which_the_report_says() -> None:
    runtime, not_run = verifying.verifying_runtime("tensorrt")
    assert runtime == "onnxruntime"
    assert not_run.startswith("TensorRT, for which the file is laid out, cannot run the file here")
    assert verifying.verifying_runtime("onnxruntime") == ("onnxruntime", "")
    assert verifying.verifying_runtime(None) == ("onnxruntime", "")


def test_a_full_range_that_cannot_be_compared_here_is_refused_before_the_work(
    pictures: Path, tmp_path: Path, on_avx2: None
) -> None:
    options = int8(pictures, "onnxruntime", int8_range="full")
    with pytest.raises(
        DeviceError, match="--int8-range full can only be compared on a processor with VNNI"
    ):
        export("lite0", tmp_path / "int8.onnx", options)
    assert list(tmp_path.iterdir()) == []
    verifying.require_verifiable(int8(pictures, "onnxruntime", int8_range="full", verify=False))
    verifying.require_verifiable(int8(pictures, "onnxruntime"))
