"""One exported detector for all tests of this folder that only read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.exporters import Artifact, ExportOptions, export

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def ranged(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """D0 at 128 pixels for batches of one to three images, verified with one and with three."""
    path: Path = tmp_path_factory.mktemp("ranged") / "d0.onnx"
    options = ExportOptions(weights="random", image_size=(128, 128), batch=BatchSpec(1, 1, 3))
    return export("d0", path, options)
