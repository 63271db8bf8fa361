"""A bundle served by a real tritonserver, from the environment that EFFDET_PYTRITON names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from effdet_deploy.synthetic import structured_pictures
from tests.native.models import make_spec, write_model

SCRIPT = Path(__file__).parents[2] / "scripts" / "triton_server.py"
ENVIRONMENT = os.environ.get("EFFDET_PYTRITON")


@pytest.mark.slow
@pytest.mark.skipif(
    ENVIRONMENT is None,
    reason="EFFDET_PYTRITON names no folder; a real tritonserver would serve the bundle over HTTP "
    "and gRPC, and every row would be compared",
)
@pytest.mark.parametrize("batch", [(1, 8), (2, 2)])
def test_a_real_server_gives_the_rows_of_the_package(tmp_path, batch):
    model = write_model(tmp_path / "tiny.onnx", make_spec(batch=batch))
    for index, picture in enumerate(structured_pictures(3, 150, 200, seed=4)):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    pictures = sorted(tmp_path.glob("*.png"))
    done = subprocess.run(
        [sys.executable, SCRIPT, model, *pictures, "--environment", ENVIRONMENT],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("equal") == 2
