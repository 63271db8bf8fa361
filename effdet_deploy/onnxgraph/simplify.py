"""onnxsim in a child process; its result is used only if the numbers stay the same.

A simplifier is native code that rewrites the graph: it may crash, hang or be wrong. If it
does, the export goes on with the graph as it was traced, and the user is told.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from effdet_deploy.artifact.spec import HEAD_OUTPUTS, INPUT_NAME
from effdet_deploy.onnxgraph.raw_heads import add_head_outputs

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray

SIMPLIFY_TIMEOUT_S = 600
"""Many times the time that the largest variant takes: a simplifier that takes longer hangs."""
MAX_RELATIVE_CHANGE = 1e-4
"""The allowed change, as a share of the heads' largest value: folded constants and fused nodes
round differently."""
_CHILD = """
import sys
# onnxsim imports torch and sympy, which takes seconds, but simplifies without them.
sys.modules["torch"] = sys.modules["sympy"] = None
import onnx, onnxsim
model, _ = onnxsim.simplify(sys.argv[1], check_n=0)
onnx.save(model, sys.argv[2])
"""


def simplify(
    source: Path,
    target: Path,
    example: NDArray[Any],
    *,
    program: str = _CHILD,
    timeout: float = SIMPLIFY_TIMEOUT_S,
) -> str:
    """Write the simplified graph of ``source`` to ``target``, in a child process.

    Args:
        source: a traced graph of ours with named nodes.
        target: the result, in the directory of ``source``.
        example: an input to compare the two graphs on, by their raw heads.
        program: Python code that simplifies the file named by its first argument, and writes the
            result to the file named by its second argument.
        timeout: seconds after which the child process is killed.

    Returns:
        An empty string, or a sentence that says why ``target`` is an unsimplified copy.
    """
    command = [sys.executable, "-P", "-c", program, str(source), str(target)]
    # The traced graph is run while the child process works.
    with ThreadPoolExecutor(1) as beside:
        before = beside.submit(_heads, source, example)
        problem = _failure(command, timeout)
    if not problem and not target.is_file():
        problem = "wrote nothing"
    problem = problem or _change(before, target, example)
    if not problem:
        return ""
    shutil.copyfile(source, target)
    return f"onnxsim {problem}; the graph is delivered as it was traced."


def _failure(command: list[str], timeout: float) -> str:
    """Run the child process and say how it failed; an empty string if it did not fail."""
    try:
        subprocess.run(  # noqa: S603 - our own interpreter and program
            command, capture_output=True, timeout=timeout, check=True
        )
    except subprocess.TimeoutExpired:
        return f"did not finish in {timeout:.0f} s"
    except subprocess.CalledProcessError as error:
        if error.returncode < 0:
            return f"was ended by signal {-error.returncode}"
        said = error.stderr.decode(errors="replace").strip().splitlines()
        return f"failed: {(said or ['no message'])[-1]}"
    return ""


def _change(before: Future[list[NDArray[Any]]], target: Path, example: NDArray[Any]) -> str:
    """Say how the results of the simplified graph differ; an empty string if they do not."""
    try:
        expected_heads, found_heads = before.result(), _heads(target, example)
    except Exception as error:  # noqa: BLE001 - in any case the traced graph is delivered
        said = (str(error) or type(error).__name__).splitlines()[0]
        return f"made a graph that does not run: {said}"
    for name, expected, found in zip(HEAD_OUTPUTS, expected_heads, found_heads, strict=True):
        if expected.shape != found.shape:
            return f"changed the shape of {name}"
        # NaN counts as a change, because NaN <= x is false.
        if not np.abs(expected - found).max() <= MAX_RELATIVE_CHANGE * np.abs(expected).max():
            return f"changed the numbers of {name}"
    return ""


def _heads(path: Path, example: NDArray[Any]) -> list[NDArray[Any]]:
    instrumented = path.with_name(f"{path.stem}.heads.scratch")
    add_head_outputs(path, instrumented)
    settings = ort.SessionOptions()
    # The arena would hold a third more memory at its peak, for a single run.
    settings.enable_cpu_mem_arena = False
    session = ort.InferenceSession(str(instrumented), settings, ["CPUExecutionProvider"])
    heads = session.run(list(HEAD_OUTPUTS), {INPUT_NAME: example})
    # Arrays of ONNX Runtime keep the whole session in memory: gigabytes for a D7x.
    return [np.array(each) for each in heads]
