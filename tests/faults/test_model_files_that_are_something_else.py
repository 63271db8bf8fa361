"""Model files that are not what they should be: empty, damaged, of another kind, too new."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from effdet_deploy.artifact.modelfile import recognize
from effdet_deploy.artifact.spec import ExternalFile
from effdet_deploy.errors import EffdetDeployWarning, InputError, ModelFileError
from effdet_deploy.files import sha256_file
from effdet_deploy.runtimes import load_runtime
from tests.onnx_models import SIDE, detector_spec, set_spec, tiny_model, write_tiny

SUFFIXES = (".onnx", ".engine", ".plan", ".torchscript")
ENGINE = b"ptrt" + b"\x00\x01\x02\x03" * 64


def refusal(path, **options) -> ModelFileError:
    with pytest.raises(ModelFileError) as caught:
        load_runtime(path, **options)
    error = caught.value
    assert error.exit_code == InputError.exit_code == 5
    assert error.remedy
    assert "\n" not in str(error)
    assert path.name in str(error)
    return error


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.touch()
    assert "is empty" in refusal(path).cause


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_are_refused(tmp_path, suffix, seed):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(np.random.default_rng(seed).bytes(4096))
    refusal(path)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.99])
def test_truncated_onnx_is_refused(tmp_path, share):
    whole = tiny_model().SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(whole[: int(len(whole) * share)])
    refusal(path)


def test_truncated_torchscript_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.torchscript"
    torch.jit.save(torch.jit.script(torch.nn.Identity()), str(path))
    path.write_bytes(path.read_bytes()[:-50])
    assert "archive" in refusal(path).cause


def test_torchscript_with_a_damaged_spec_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.torchscript"
    extra = {"effdet.spec": detector_spec().to_json()}
    torch.jit.save(torch.jit.script(torch.nn.Identity()), str(path), _extra_files=extra)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"variant"', b'"Variant"'))
    assert "is damaged" in refusal(path).cause


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_directory_as_model_is_refused(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.mkdir()
    assert "is a directory" in refusal(path).cause


def test_absent_file_is_refused(tmp_path):
    assert "does not exist" in refusal(tmp_path / "model.onnx").cause


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_checkpoint_is_recognized_and_the_export_command_named(tmp_path, name):
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / name
    if name.endswith("pth"):
        torch.save({"w": torch.zeros(3)}, path)
    else:
        safetensors.save_file({"w": torch.zeros(3)}, path)
    error = refusal(path, backend="onnxruntime")
    assert "checkpoint" in error.cause
    assert "effdet-export --weights" in error.remedy


def external_model(directory, location: str, content: bytes = b"", *, record: bool = True):
    """Write a tiny model whose box constant lies in an external file at ``location``."""
    model = tiny_model()
    boxes = next(each for each in model.graph.initializer if each.name == "boxes")
    payload = numpy_helper.to_array(boxes).tobytes()
    onnx.external_data_helper.set_external_data(boxes, location, 0, len(payload))
    boxes.ClearField("raw_data")
    data = directory / "model.onnx.data"
    data.write_bytes(content or payload)
    if record:
        listed = ExternalFile(location, len(payload), sha256_file(data))
        set_spec(model, dataclasses.replace(detector_spec(), external_files=(listed,)))
    path = directory / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path, data


def test_an_external_file_in_its_place_loads(tmp_path):
    path, _ = external_model(tmp_path, "model.onnx.data")
    outputs = load_runtime(path).run({"images": np.zeros((1, SIDE, SIDE, 3), np.uint8)})
    assert outputs["detection_boxes"][0, 0].tolist() == [10, 20, 50, 60]


def test_external_data_that_its_export_did_not_write_is_named(tmp_path):
    path, _ = external_model(tmp_path, "model.onnx.data", record=False)
    with pytest.warns(EffdetDeployWarning, match="reads 'model.onnx.data'"):
        load_runtime(path)


@pytest.mark.parametrize("record", [True, False])
def test_external_data_outside_the_models_directory_is_refused(tmp_path, record):
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "model.onnx.data").write_bytes(b"x" * 64)
    climbing, _ = external_model(inner, "../model.onnx.data", record=record)
    assert "own directory" in refusal(climbing).cause
    absolute, _ = external_model(inner, str(tmp_path / "model.onnx.data"), record=record)
    assert "own directory" in refusal(absolute).cause


@pytest.mark.parametrize("record", [True, False])
def test_external_data_through_a_symlink_is_refused(tmp_path, record):
    path, data = external_model(tmp_path, "model.onnx.data", record=record)
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    assert "own directory" in refusal(path).cause


def test_a_symlinked_folder_that_leaves_the_directory_is_refused(tmp_path):
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    inner.mkdir()
    outer.mkdir()
    path, data = external_model(inner, "link/model.onnx.data")
    data.rename(outer / data.name)
    (inner / "link").symlink_to(outer)
    assert "own directory" in refusal(path).cause


@pytest.mark.parametrize("record", [True, False])
def test_missing_external_data_is_refused(tmp_path, record):
    path, data = external_model(tmp_path, "model.onnx.data", record=record)
    data.unlink()
    assert "is missing" in refusal(path).cause


@pytest.mark.filterwarnings("ignore:.*its export did not write")
@pytest.mark.parametrize("record", [True, False])
def test_truncated_external_data_is_refused(tmp_path, record):
    path, data = external_model(tmp_path, "model.onnx.data", record=record)
    data.write_bytes(data.read_bytes()[:-4])
    assert "60 bytes" in refusal(path).cause


def test_one_flipped_bit_in_external_data_is_refused(tmp_path):
    path, data = external_model(tmp_path, "model.onnx.data")
    content = bytearray(data.read_bytes())
    content[17] ^= 1
    data.write_bytes(content)
    assert "has changed since the export" in refusal(path).cause


def changed(tmp_path, change):
    model = tiny_model()
    change(model)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_an_opset_too_new_is_named(tmp_path, backend):
    def change(model):
        model.opset_import[0].version = 99

    error = refusal(changed(tmp_path, change), backend=backend)
    assert "opset 99" in error.cause
    assert backend in error.remedy


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_an_ir_version_too_new_is_named(tmp_path, backend):
    def change(model):
        model.ir_version = 99

    error = refusal(changed(tmp_path, change), backend=backend)
    assert "IR version 99" in error.cause
    assert backend in error.remedy


def test_a_custom_operator_is_named(tmp_path):
    def change(model):
        model.opset_import.append(helper.make_opsetid("com.acme", 1))
        model.graph.node[0].domain = "com.acme"
        model.graph.node[0].op_type = "Magic"

    assert "com.acme:Magic" in refusal(changed(tmp_path, change)).cause


def test_an_operator_that_no_opset_has_is_named(tmp_path):
    def change(model):
        model.graph.node[0].op_type = "Conjure"

    error = refusal(changed(tmp_path, change))
    assert "Conjure" in error.cause
    assert "18" in error.cause


def test_a_graph_that_is_inconsistent_is_refused_in_one_sentence(tmp_path):
    def change(model):
        model.graph.node[1].input[0] = "nowhere"

    assert "nowhere" in refusal(changed(tmp_path, change)).cause


@pytest.mark.parametrize("suffix", [".engine", ".plan", ".torchscript"])
def test_onnx_under_another_name_is_recognized(tmp_path, suffix):
    error = refusal(write_tiny(tmp_path / f"model{suffix}"))
    assert "holds an ONNX model, not" in error.cause
    assert "'.onnx'" in error.remedy


@pytest.mark.parametrize("magic", [b"ptrt", b"ftrt", b"vtrt"])
def test_an_engine_named_onnx_is_recognized(tmp_path, magic):
    path = tmp_path / "model.onnx"
    path.write_bytes(magic + ENGINE[4:])
    error = refusal(path)
    assert "holds a TensorRT engine, not an ONNX model" in error.cause
    assert "'.engine'" in error.remedy


def test_torchscript_named_onnx_is_recognized(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.onnx"
    torch.jit.save(torch.jit.script(torch.nn.Identity()), str(path))
    assert recognize(path) == "torchscript"
    assert "holds a TorchScript archive" in refusal(path).cause


def test_a_named_backend_does_not_overrule_the_content(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(ENGINE)
    assert "TensorRT engine" in refusal(path, backend="onnxruntime").cause
