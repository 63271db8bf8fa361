"""The tables of ``tensorrt.toml`` as objects; the file names its sources."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from effdet_deploy.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FLOAT = frozenset({"FLOAT", "FLOAT16", "BFLOAT16"})
_NUMBER = _FLOAT | {"INT32", "INT64"}
QUANTIZED_TYPES = frozenset({"INT8", "INT4", "FLOAT8E4M3FN", "FLOAT4E2M1"})
"""Types that only exist between a QuantizeLinear and a DequantizeLinear."""

READ_AS_FLOAT = "DOUBLE"
"""The type that TensorRT silently reads as FLOAT."""

TENSOR_TYPES = _NUMBER | QUANTIZED_TYPES | {"BOOL", "UINT8", READ_AS_FLOAT}
"""All ONNX types that TensorRT has."""

_GROUPS = {
    "any": TENSOR_TYPES,
    "all": _NUMBER | {"BOOL"},
    "number": _NUMBER,
    "number_but_int32": _NUMBER - {"INT32"},
    "float": _FLOAT,
    "bool": frozenset({"BOOL"}),
}
"""The sets of element types that ``tensorrt.toml`` names."""


@dataclass(frozen=True)
class Target:
    """What one version of TensorRT accepts.

    Attributes:
        name: the target's name, such as ``"tensorrt-11"``.
        title: the target's name in sentences.
        opsets: the lowest and the highest opset of ONNX.
        ir_version: the newest version of the file format.
        plugins: operators outside ONNX that its plugin library has.
        operators: the accepted ONNX operators, with the types of their main input.
        attributes: operator → attribute → the allowed values.
        outputs: operator → the largest number of outputs.
        constants: operator → the inputs, by index, that must be known when the engine is built.
        max_rank, max_topk, max_spatial_rank: the largest number of dimensions, K of a TopK, and
            number of spatial dimensions.
        plugin_attributes: plugin → the attributes that it must have.
        remedies: operator that is not accepted → a sentence on what to use instead.
    """

    name: str
    title: str
    opsets: tuple[int, int]
    ir_version: int
    plugins: frozenset[str]
    operators: Mapping[str, frozenset[str]]
    attributes: Mapping[str, Mapping[str, Sequence[Any]]]
    outputs: Mapping[str, int]
    constants: Mapping[str, Sequence[int]]
    max_rank: int
    max_topk: int
    max_spatial_rank: int
    plugin_attributes: Mapping[str, Sequence[str]]
    remedies: Mapping[str, str]


def target_names() -> tuple[str, ...]:
    """Return the names that :func:`load_target` accepts."""
    return tuple(_tables()["targets"])


def target_of(backend: str, version: str) -> str | None:
    """Return the name of the target for a release; None if there is no table for it.

    Args:
        backend: ``"tensorrt"`` or ``"tensorrt-rtx"``.
        version: the release, such as ``"10.16.1.11"``.
    """
    name = backend if backend == "tensorrt-rtx" else f"{backend}-{version.partition('.')[0]}"
    return name if name in _tables()["targets"] else None


def load_target(name: str) -> Target:
    """Load the table of the target ``name``.

    Raises:
        UnknownNameError: the target is unknown.
    """
    tables = _tables()
    if name not in tables["targets"]:
        raise UnknownNameError("target", name, tables["targets"])
    own = tables["targets"][name]
    limits, changed = tables["limits"], own.get("attributes", {})
    return Target(
        name=name,
        title=own["title"],
        opsets=tuple(own["opsets"]),
        ir_version=own["ir_version"],
        plugins=frozenset(own["plugins"]),
        operators={
            operator: _GROUPS[group]
            for group, operators in tables["operators"].items()
            for operator in operators
            if operator not in own["absent"]
        },
        attributes={
            operator: rules | changed.get(operator, {})
            for operator, rules in tables["attributes"].items()
        },
        outputs=tables["outputs"],
        constants=tables["constants"],
        max_rank=limits["rank"],
        max_topk=limits["topk"],
        max_spatial_rank=limits["spatial_rank"],
        plugin_attributes=tables["plugins"],
        remedies=tables["remedies"],
    )


@functools.cache
def _tables() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("tensorrt.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
