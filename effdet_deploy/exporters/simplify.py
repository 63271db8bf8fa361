"""onnxsim in a child process, believed only where the numbers stay the same.

A simplifier is native code that rewrites the graph: it may crash, hang or be wrong. Whatever
happens, the export goes on with the graph as it was traced, and the user is told.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SIMPLIFY_TIMEOUT_S = 600
"""D7x takes well under a minute; beyond this the simplifier hangs."""
_CHILD = (
    "import sys, onnx, onnxsim\n"
    "model, _ = onnxsim.simplify(sys.argv[1], check_n=0)\n"
    "onnx.save(model, sys.argv[2], save_as_external_data=len(sys.argv) > 3)\n"
)


def simplify(source: Path, target: Path, *, timeout: float = SIMPLIFY_TIMEOUT_S) -> str:
    """Write the simplified graph of ``source`` to ``target``, in a child process.

    Returns:
        An empty string, or in one sentence why ``target`` is an unsimplified copy.
    """
    command = [sys.executable, "-c", _CHILD, str(source), str(target)]
    try:
        result = subprocess.run(  # noqa: S603 - our own interpreter and program
            command, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return _keep(source, target, f"did not finish in {timeout:.0f} s")
    if result.returncode < 0:
        return _keep(source, target, f"was ended by signal {-result.returncode}")
    if result.returncode or not target.is_file():
        last_line = (result.stderr.strip().splitlines() or ["no message"])[-1]
        return _keep(source, target, f"failed: {last_line}")
    return ""


def _keep(source: Path, target: Path, reason: str) -> str:
    shutil.copyfile(source, target)
    return f"onnxsim {reason}; the graph is delivered as it was traced."
