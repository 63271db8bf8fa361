from __future__ import annotations

import pytest


@pytest.fixture
def use_engine_double(monkeypatch):
    """Put the doubles of TensorRT and CUDA in place in this process; returns the CUDA double."""
    # They need the ONNX tools, which a machine that runs the tests of a GPU may lack.
    from tests.doubles.installed import install_double

    return lambda *arguments, **options: install_double(monkeypatch, *arguments, **options)
