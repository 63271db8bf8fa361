"""Installed packages are read from metadata; these tests supply the metadata."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

from effdet_deploy.runtimes import gpu, installation

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


@pytest.fixture(autouse=True)
def metadata(monkeypatch):
    """Supply the metadata of this source, because the installed package may be older."""
    requirements = list(PROJECT["dependencies"])
    for extra, packages in PROJECT["optional-dependencies"].items():
        requirements += [f"{each}; extra == '{extra}'" for each in packages]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _name: requirements)


def versions(monkeypatch, present: dict[str, str]) -> None:
    monkeypatch.setattr(installation, "installed_version", present.get)


def distribution(requirement: str) -> str:
    return re.split(r"[>=\[]", requirement)[0].strip()


def test_every_extra_but_the_developers_has_a_purpose():
    extras = {"", *PROJECT["optional-dependencies"]} - {"dev", "docs", "release"}
    assert extras == installation.PURPOSES.keys()


def test_the_packages_of_every_extra_are_known():
    extras = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    found = installation.packages_by_extra()
    assert found == {name: list(map(distribution, each)) for name, each in extras.items()}
    document = installation.examine()
    shown = [list(each["packages"]) for each in document["purposes"]]
    assert shown == [found[extra] for extra in installation.PURPOSES]


@pytest.mark.parametrize(
    "requirement",
    [
        "torch>=2.9; extra == 'export'",
        'torch>=2.9 ; extra == "export"',
        "torch (>=2.9) ; python_version < '4' and extra == 'export'",
    ],
)
def test_a_requirement_is_read_in_every_form_that_metadata_has(monkeypatch, requirement):
    monkeypatch.setattr(importlib.metadata, "requires", lambda _name: [requirement])
    assert installation.packages_by_extra() == {"export": ["torch"]}


def test_a_source_that_is_not_installed_says_so(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    document = installation.examine()
    assert document["purposes"] == []
    assert "not installed" in document["notices"][0][0]


def test_two_onnxruntimes_are_noticed(monkeypatch):
    versions(monkeypatch, {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"})
    assert "both installed" in installation.examine()["notices"][0][0]


def test_onnxruntimes_gpu_build_is_enough_for_running(monkeypatch):
    versions(monkeypatch, {"onnxruntime-gpu": "1.31.1"})
    document = installation.examine()
    assert document["purposes"][0]["packages"]["onnxruntime"] == "1.31.1 (onnxruntime-gpu)"
    assert not document["notices"]


def test_pycuda_is_enough_for_running_engines_and_a_tensorrt_of_the_system_is_kept(monkeypatch):
    versions(monkeypatch, {"tensorrt": "10.7", "pycuda": "2025.1"})
    purposes = installation.examine()["purposes"]
    (engines,) = (each for each in purposes if each["purpose"] == "build TensorRT engines")
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
    monkeypatch.setattr(installation, "list_gpus", lambda: [gpu.Gpu(each, "8.9") for each in gpus])
    monkeypatch.setattr(installation, "onnxruntime_providers", lambda: providers)
    assert bool(installation.examine()["notices"]) == noticed
