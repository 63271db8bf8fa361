"""One exported detector for all tests of this folder."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """lite0 for three classes at 128 pixels."""
    from tests.diagnosis.planted import export_detector

    return export_detector(tmp_path_factory.mktemp("exported") / "lite0.onnx")
