"""A model, a picture and the command line, for the tests of all commands."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.onnx_models import SIDE, write_tiny


@pytest.fixture
def model(tmp_path):
    return write_tiny(tmp_path / "tiny.onnx")


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "white.png"
    Image.fromarray(np.full((SIDE, SIDE, 3), 255, np.uint8)).save(path)
    return path


@pytest.fixture
def run_tool(tmp_path):
    """Run the command line in a process of its own, in a wide terminal, and return the process."""

    def run(*arguments: object, program: str = "main", prelude: str = "", **options):
        code = (
            f"import sys; {prelude}\nfrom effdet_deploy.cli import {program}\nsys.exit({program}())"
        )
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
            timeout=120,
            **options,
        )

    return run
