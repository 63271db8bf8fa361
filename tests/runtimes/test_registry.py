from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

from effdet_deploy.artifact.modelfile import SUFFIXES
from effdet_deploy.errors import MissingError, MissingPackageError, UnknownNameError, UsageError
from effdet_deploy.runtimes import BACKENDS, load_runtime
from tests.onnx_models import write_tiny


def test_every_backend_is_named_by_its_key_and_its_module_exists():
    for name, backend in BACKENDS.items():
        assert backend.name == name
        assert importlib.util.find_spec(backend.module) is not None
        assert backend.content in SUFFIXES.values()


def test_an_unknown_backend_is_refused_with_the_nearest_name(tmp_path):
    path = write_tiny(tmp_path / "tiny.onnx")
    with pytest.raises(UnknownNameError) as caught:
        load_runtime(path, backend="onnxrt")
    assert "onnxruntime" in caught.value.nearest


def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path):
    path = write_tiny(tmp_path / "tiny.onxx")
    with pytest.raises(UnknownNameError) as caught:
        load_runtime(path)
    assert ".onnx" in caught.value.remedy


def test_a_named_backend_takes_a_file_of_any_name(tmp_path):
    path = write_tiny(tmp_path / "model.bin")
    assert load_runtime(path, backend="onnxruntime").backend == "onnxruntime"


def test_a_suffix_in_capitals_is_understood(tmp_path):
    assert load_runtime(write_tiny(tmp_path / "TINY.ONNX")).backend == "onnxruntime"


def test_paths_with_spaces_semicolons_and_unicode_work(tmp_path):
    directory = tmp_path / "a dir; ünï"
    directory.mkdir()
    assert load_runtime(str(write_tiny(directory / "模型 1;.onnx"))).backend == "onnxruntime"


def block(monkeypatch, package: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, module, raising=False)


def test_a_missing_torch_names_the_extra(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    path = tmp_path / "m.torchscript"
    torch.jit.save(torch.jit.script(torch.nn.Identity()), path)
    block(monkeypatch, "torch", "effdet_deploy.runtimes.torchscript")
    with pytest.raises(MissingPackageError, match=r"effdet-deploy\[export\]"):
        load_runtime(path)


def test_a_missing_onnxruntime_names_the_package(tmp_path, monkeypatch):
    path = write_tiny(tmp_path / "tiny.onnx")
    block(monkeypatch, "onnxruntime", "effdet_deploy.runtimes.onnxruntime")
    with pytest.raises(MissingError, match="pip install onnxruntime"):
        load_runtime(path)


@pytest.mark.parametrize("threads", [0, -1, 10_000, 10**6])
def test_a_number_of_threads_beyond_reason_is_a_usage_error(tmp_path, threads):
    path = write_tiny(tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="number of threads must be from 1 to"):
        load_runtime(path, threads=threads)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_device_called_gpu_is_answered_with_cuda_s_names(tmp_path, backend):
    path = write_tiny(tmp_path / "model.onnx")
    with pytest.raises(UnknownNameError) as caught:
        load_runtime(path, backend, "gpu")
    assert "'cuda'" in caught.value.remedy


def test_all_names_of_a_small_registry_are_listed(tmp_path):
    with pytest.raises(UnknownNameError) as caught:
        load_runtime(write_tiny(tmp_path / "model.onnx"), "ort")
    assert "onnxruntime" in caught.value.remedy


def test_a_run_leaves_nothing_in_the_users_folders(tmp_path):
    # ONNX Runtime's telemetry would write an identifier to the cache and a temporary file.
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys; from effdet_deploy.runtimes import load_runtime\n"
        "import numpy as np; runtime = load_runtime(sys.argv[1])\n"
        "runtime.run({'images': np.zeros(runtime.spec.input.shape(1), np.uint8)})"
    )
    chosen = {"HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": ""}
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("ORT_")}
    subprocess.run(
        [sys.executable, "-c", code, write_tiny(tmp_path / "tiny.onnx")],
        env=inherited | chosen,
        check=True,
        timeout=60,
    )
    assert list(home.iterdir()) == []
