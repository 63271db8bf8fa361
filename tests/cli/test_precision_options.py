"""Contradictions about precision are refused before torch is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import sys
from effdet_deploy.cli import export_main
code = export_main(sys.argv[1:])
sys.exit(100 if "torch" in sys.modules else code)
"""
USAGE = 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fp16", "--int8", "--target", "tensorrt"], "--fp16 and --int8 contradict each other"),
        (["--int8", "--target", "tensorrt"], "needs pictures for calibration"),
        (["--fp16"], "needs --target"),
        (["--int8", "--target", "tensort", "--calibration", "."], "no target named 'tensort'"),
        (["--fp16", "--target", "tensorrt", "--max-map-drop", "1"], "only works with --int8"),
    ],
)
def test_a_contradiction_is_a_usage_error_and_torch_is_not_imported(tmp_path, arguments, said):
    command = [sys.executable, "-c", _PROGRAM, "--variant", "d0", *arguments]
    done = subprocess.run(
        [*command, str(tmp_path / "model.onnx")], capture_output=True, text=True, check=False
    )
    assert done.returncode == USAGE, done.stderr
    assert said in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []
