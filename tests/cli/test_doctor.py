from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from effdet_deploy.cli import doctor, main
from effdet_deploy.runtimes import gpu

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def versions(monkeypatch, present: dict[str, str]) -> None:
    monkeypatch.setattr(doctor, "installed_version", present.get)


def distribution(requirement: str) -> str:
    return re.split(r"[>=\[]", requirement)[0].strip()


def test_it_knows_exactly_what_each_extra_installs():
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    extras = {"": project["dependencies"], **project["optional-dependencies"]}
    del extras["dev"]
    assert {each.extra for each in doctor.PURPOSES} == extras.keys()
    for purpose in doctor.PURPOSES:
        assert set(purpose.packages) == {distribution(each) for each in extras[purpose.extra]}


def test_it_lists_versions_devices_and_providers(capsys, tmp_path):
    target = tmp_path / "doctor.json"
    assert main(["doctor", "--json", str(target)]) == 0
    shown = capsys.readouterr().out
    assert "CPUExecutionProvider" in shown
    document = json.loads(target.read_text())
    running = document["purposes"][0]
    assert running["ready"]
    assert running["packages"]["onnxruntime"] is not None


def test_what_is_missing_comes_with_its_command(monkeypatch, capsys):
    versions(monkeypatch, {"numpy": "2.0", "onnxruntime": "1.31"})
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for extra in ("export", "openvino", "eval", "tensorrt", "tensorrt-rtx"):
        assert f"pip install 'effdet-deploy[{extra}]'" in shown


def test_two_onnxruntimes_are_noticed(monkeypatch, capsys):
    versions(monkeypatch, {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"})
    main(["doctor"])
    assert "both installed" in capsys.readouterr().err


def test_the_gpu_build_serves_for_running(monkeypatch):
    versions(monkeypatch, {"onnxruntime-gpu": "1.31.1"})
    document = doctor.examine()
    assert document["purposes"][0]["packages"]["onnxruntime"] == "1.31.1 (onnxruntime-gpu)"
    assert not document["notices"]


def test_pycuda_serves_for_running_engines_and_a_tensorrt_of_the_system_stays(monkeypatch):
    versions(monkeypatch, {"tensorrt": "10.7", "pycuda": "2025.1"})
    (engines,) = (
        each for each in doctor.examine()["purposes"] if each["purpose"] == "build TensorRT engines"
    )
    assert engines["packages"]["cuda-python"] == "2025.1 (pycuda)"
    assert engines["command"] == "pip install onnx"


@pytest.mark.parametrize(
    ("gpus", "providers", "noticed"),
    [
        (["NVIDIA L4"], ["CPUExecutionProvider"], True),
        (["NVIDIA L4"], ["CUDAExecutionProvider", "CPUExecutionProvider"], False),
        ([], ["CPUExecutionProvider"], False),
    ],
)
def test_a_gpu_that_onnxruntime_cannot_use_is_noticed(monkeypatch, gpus, providers, noticed):
    versions(monkeypatch, {"onnxruntime": "1.31.1"})
    monkeypatch.setattr(gpu, "list_gpus", lambda: [gpu.Gpu(name, "8.9") for name in gpus])
    monkeypatch.setattr(doctor, "onnxruntime_providers", lambda: providers)
    assert bool(doctor.examine()["notices"]) == noticed
