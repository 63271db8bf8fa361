"""A model to build, an engine that is already there, and a double of TensorRT."""

from __future__ import annotations

import pytest

from tests.doubles.machine import with_double
from tests.faults.builds import OLD
from tests.onnx_models import write_tiny


@pytest.fixture
def model(tmp_path):
    return write_tiny(tmp_path / "tiny.onnx")


@pytest.fixture
def engine(tmp_path):
    """An engine that already lies where the new one will go."""
    path = tmp_path / "tiny.engine"
    path.write_bytes(OLD)
    return path


@pytest.fixture
def use_double(monkeypatch, tmp_path):
    """Return a function that puts the double in TensorRT's place and returns its log of calls."""

    def use(scenario: str, version: str = "10.16.1.11"):
        log = tmp_path / "calls.jsonl"
        for name, value in with_double(scenario, version=version, log=log).items():
            monkeypatch.setenv(name, value)
        return log

    return use
