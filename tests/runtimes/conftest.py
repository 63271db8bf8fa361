from __future__ import annotations

import pytest


@pytest.fixture
def use_engine_double(monkeypatch):
    """Install the doubles of TensorRT and CUDA in this process; return the CUDA double."""
    # The doubles need the ONNX tools, which a machine that runs the GPU tests may lack.
    from tests.doubles.installed import install_double

    return lambda *arguments, **options: install_double(monkeypatch, *arguments, **options)
