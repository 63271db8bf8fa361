from __future__ import annotations

import pytest

from tests.doubles.installed import install_double


@pytest.fixture
def use_engine_double(monkeypatch):
    """Put the doubles of TensorRT and CUDA in place in this process; returns the CUDA double."""
    return lambda *arguments, **options: install_double(monkeypatch, *arguments, **options)
