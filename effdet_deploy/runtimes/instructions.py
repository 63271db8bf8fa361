"""The processor instructions that an INT8 file needs, and those that this processor has.

x86 processors multiply uint8 by int8 either with the instructions called VNNI, which add products
in 32 bits, or with ``pmaddubsw``, which adds two products in 16 bits and saturates. A saturated sum
is silently wrong, so a file with weights that can saturate a sum is refused on processors without
VNNI.
"""

from __future__ import annotations

import importlib
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.artifact.int8weights import read_int8_weights
from effdet_deploy.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import PrecisionSpec
    from effdet_deploy.runtimes.adapter import Runtime

_X86 = ("x86_64", "amd64", "i386", "i686")
_LARGEST_INPUT = 255
_LARGEST_SUM = 2**15 - 1
_SETS = (
    ("AMX", ("amx_int8",)),
    ("AVX-512 with VNNI", ("avx512_vnni",)),
    ("AVX2 with VNNI", ("avx_vnni",)),
    ("AVX-512 without VNNI", ("avx512f", "avx512bw")),
    ("AVX2", ("avx2",)),
    ("SSE4.1", ("sse4_1",)),
)
"""Instruction sets for which INT8 kernels are written, best first, with their flags in Linux."""
_NAMES = tuple(name for name, _ in _SETS)
_WITH_VNNI = _NAMES[:3]
_UNKNOWN = "an unknown instruction set"
ONEDNN_SWITCHES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that limit the instruction sets of oneDNN, the library in which OpenVINO
computes; the first variable that is set counts."""
_ONEDNN_LEAVES = {
    "SSE41": _NAMES[5:],
    "AVX": _NAMES[5:],
    "AVX2": _NAMES[4:],
    "AVX2_VNNI": (_NAMES[2], *_NAMES[4:]),
    "AVX2_VNNI_2": (_NAMES[2], *_NAMES[4:]),
    "AVX512_CORE": _NAMES[3:],
    "AVX512_CORE_VNNI": (_NAMES[1], *_NAMES[3:]),
    "AVX512_CORE_BF16": (_NAMES[1], *_NAMES[3:]),
    "AVX512_CORE_FP16": (_NAMES[1], *_NAMES[3:]),
}
"""Limit → the instruction sets that oneDNN may still use; any other limit allows all sets."""


def instruction_set(
    backend: str, proc: Path = Path("/proc"), environment: Mapping[str, str] = os.environ
) -> str:
    """Name the best instruction set that ``backend`` can use for INT8 on this processor.

    For other processors than x86, which do not add in 16 bits, the result is the kind of the
    processor. The instruction set of an x86 processor is known only on Linux.
    """
    if platform.machine().lower() not in _X86:
        return platform.machine()
    try:
        lines = (proc / "cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    left = _NAMES
    if backend == "openvino":
        limit = next((environment[each] for each in ONEDNN_SWITCHES if each in environment), "")
        left = _ONEDNN_LEAVES.get(limit.upper(), _NAMES)
    present = (
        name for name, needed in _SETS if name in left and all(each in flags for each in needed)
    )
    return next(present, _UNKNOWN)


def describe_kernels(backend: str) -> str:
    """Name a CPU backend with its version and the instruction set of its INT8 kernels."""
    names = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}
    version = importlib.import_module(backend).__version__.partition("-")[0]
    return f"{names[backend]} {version}, {instruction_set(backend)}"


def is_exact(instructions: str) -> bool:
    """Return whether INT8 products are added in 32 bits with these instructions.

    ``instructions`` is a result of :func:`instruction_set`; an unknown set counts as not exact.
    """
    return instructions in _WITH_VNNI or instructions not in (*_NAMES, _UNKNOWN)


def may_saturate(precision: PrecisionSpec, backend: str) -> bool:
    """Return whether ``backend`` may add products in 16 bits on some processor.

    ONNX Runtime computes in float if the file is laid out for another runtime.

    Args:
        precision: the precision of the file.
        backend: the name of a runtime.
    """
    if precision.kind != "int8" or precision.int8_range == "portable":
        return False
    if backend == "onnxruntime":
        return precision.target == "onnxruntime"
    return backend == "openvino"


def pair_bound(weights: NDArray[np.int8]) -> int:
    """Return the largest absolute sum of two products (a weight by a uint8 input) in a layer.

    Any two weights of an output channel count as a pair, because kernels form different pairs. In a
    layer with one input channel, such as a depthwise convolution, kernels do not add pairs; the
    bound is then a single product.

    Args:
        weights: ``[out, in/groups, taps]``.
    """
    rows = weights.reshape(len(weights), -1).astype(np.int64)
    count = 1 if weights.shape[1] == 1 else min(2, rows.shape[1])
    ordered = np.sort(rows, axis=1)
    lowest, highest = ordered[:, :count], ordered[:, -count:]
    sums = np.maximum(-np.minimum(lowest, 0).sum(axis=1), np.maximum(highest, 0).sum(axis=1))
    return int(sums.max(initial=0)) * _LARGEST_INPUT


def saturating_layers(path: Path) -> dict[str, int]:
    """Return the INT8 layers of an ONNX file in which a sum of two products can exceed 16 bits.

    Returns:
        The largest sum of every such layer, by the layer's name, with the largest sum first.
    """
    bounds = {name: pair_bound(weights) for name, weights in read_int8_weights(path).items()}
    over = {name: bound for name, bound in bounds.items() if bound > _LARGEST_SUM}
    return dict(sorted(over.items(), key=lambda item: -item[1]))


def require_exact_sums(path: Path, runtime: Runtime) -> None:
    """Check that no layer of a loaded model saturates where it runs.

    Raises:
        DeviceError: a layer can saturate; the message names it.
    """
    backend, precision = runtime.backend, runtime.spec.precision
    here = instruction_set(backend)
    if runtime.device != "cpu" or is_exact(here) or not may_saturate(precision, backend):
        return
    over = saturating_layers(path)
    if not over:
        return
    name, largest = next(iter(over.items()))
    raise DeviceError(
        f"'{path.name}' needs a processor with VNNI, but {backend} can only use {here} on this "
        f"one: {len(over)} INT8 layers of the file can overflow. The worst is '{name}', where two "
        f"products add up to {largest}, more than the {_LARGEST_SUM} that 16 bits hold.",
        "Export the model with --int8-range portable, which is right on every x86 processor; or "
        "pass --allow-saturation to run the file and get wrong results.",
    )


def describe_int8(path: Path, precision: PrecisionSpec) -> dict[str, Any]:
    """Return what an INT8 file needs of a CPU, and whether this CPU computes the file correctly.

    Raises:
        ModelFileError: the file is not an ONNX file, or is truncated or damaged.
    """
    runtime = "openvino" if precision.target == "openvino" else "onnxruntime"
    layers = saturating_layers(path) if may_saturate(precision, runtime) else {}
    here = instruction_set(runtime)
    return {
        "engine": runtime,
        "needs": "vnni" if layers else None,
        "saturating_layers": list(layers),
        "here": here,
        "right_here": not layers or is_exact(here),
    }
