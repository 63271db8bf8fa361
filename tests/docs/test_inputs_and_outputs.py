"""The program in docs/inputs-and-outputs.md, run as it stands, finds what the package finds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import effdet_deploy
from effdet_deploy.synthetic import structured_pictures
from tests.onnx_models import write_tiny

DOCUMENT = Path(__file__).parents[2] / "docs" / "inputs-and-outputs.md"


@pytest.mark.parametrize("size", [(150, 200), (301, 97)])
def test_the_program_finds_what_the_package_finds(size, tmp_path):
    (program,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    model, picture = write_tiny(tmp_path / "tiny.onnx"), tmp_path / "picture.png"
    Image.fromarray(structured_pictures(1, *size, seed=2)[0]).save(picture)
    command = [sys.executable, "-c", program, str(model), str(picture)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    with effdet_deploy.load(model) as detector:
        (found,) = detector.detect([picture])
    assert len(found.boxes) > 0
    expected = [
        " ".join((found.names[label], f"{score:.4f}", *(f"{side:.2f}" for side in box)))
        for label, score, box in zip(found.labels, found.scores, found.boxes, strict=True)
    ]
    assert printed.stdout.splitlines() == expected
