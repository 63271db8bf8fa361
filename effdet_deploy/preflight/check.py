"""Preflight: does a TensorRT take this ONNX file, and does it compute what the file says?

Answered from a table (:mod:`effdet_deploy.preflight.tables`), so neither TensorRT nor a GPU is
needed; confirmed by NVIDIA's own parser for ``tensorrt-rtx`` where that is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from effdet_deploy.errors import ModelFileError, require_package
from effdet_deploy.preflight.tables import load_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from effdet_deploy.preflight.finding import Finding
    from effdet_deploy.preflight.graph import Graph
    from effdet_deploy.preflight.tables import Target

    Rule = Callable[[Graph, Target], Iterator[Finding]]

_PARSED_HERE = "tensorrt-rtx"


def check_model(path: Path, target: str) -> tuple[Finding, ...]:
    """Return everything about the ONNX file ``path`` that does not fit ``target``.

    Args:
        path: an ONNX file; external weights are not read.
        target: ``"tensorrt-10"``, ``"tensorrt-11"`` or ``"tensorrt-rtx"``.

    Returns:
        What was found, errors first, in the order of the nodes; empty when the model fits.

    Raises:
        UnknownNameError: no such target.
        ModelFileError: not a readable ONNX file.
        MissingPackageError: the package ``onnx`` is not installed.
    """
    return _check(path, load_target(target), ask_parser=target == _PARSED_HERE)


def _check(path: Path, target: Target, *, ask_parser: bool) -> tuple[Finding, ...]:
    require_onnx()
    from effdet_deploy.preflight.graph import read_graph

    graph = read_graph(path)
    findings = [finding for rule in _rules() for finding in rule(graph, target)]
    if ask_parser:
        findings += _confirmed(path, findings)
    order = {node.name: index for index, node in enumerate(graph.nodes)}
    findings.sort(key=lambda each: (each.severity != "error", order.get(each.node, -1)))
    return tuple(dict.fromkeys(findings))


def require_fit(path: Path, target: str) -> tuple[Finding, ...]:
    """Check ``path`` before it is built for ``target``; return the warnings.

    No parser is asked: the builder's own comes next.

    Raises:
        ModelFileError: the target refuses the model; every reason is named with its node.
        UnknownNameError, MissingPackageError: as :func:`check_model`.
    """
    wanted = load_target(target)
    findings = _check(path, wanted, ask_parser=False)
    errors = [each for each in findings if each.severity == "error"]
    if errors:
        raise _refusal(path, wanted.title, errors)
    return findings


def _refusal(path: Path, title: str, errors: Iterable[Finding]) -> ModelFileError:
    """Return the error that says why ``title`` refuses the model; each cause names its nodes."""
    nodes: dict[str, list[str]] = {}
    remedies: dict[str, None] = {}
    for each in errors:
        nodes.setdefault(each.cause.rstrip("."), []).append(each.node)
        remedies[each.remedy] = None
    causes = "; ".join(
        ": ".join(filter(None, (", ".join(filter(None, named)), cause)))
        for cause, named in nodes.items()
    )
    return ModelFileError(f"{title} refuses '{path.name}': {causes}.", " ".join(remedies))


def require_onnx() -> None:
    """Check that the package ``onnx`` is there.

    Raises:
        MissingPackageError: it is not.
    """
    require_package("onnx", "checking a model for TensorRT")


def _rules() -> tuple[Rule, ...]:
    from effdet_deploy.preflight import operators, quantization, strong_typing

    return (
        operators.check_versions,
        operators.check_operators,
        operators.check_attributes,
        operators.check_arity,
        operators.check_inputs,
        operators.check_limits,
        operators.check_output_shapes,
        strong_typing.check_known_types,
        strong_typing.check_uint8,
        strong_typing.check_operator_types,
        strong_typing.check_onnx_types,
        strong_typing.check_same_types,
        strong_typing.check_output_types,
        quantization.check_quantisers,
        quantization.check_quantised_convolutions,
    )


def _confirmed(path: Path, findings: list[Finding]) -> list[Finding]:
    """What NVIDIA's parser refuses beyond the table's errors: at other nodes, or after none."""
    from effdet_deploy.preflight.parser import rtx_findings

    refused = rtx_findings(path)
    known = {each.node for each in findings if each.severity == "error"}
    if known and all(not each.node for each in refused):
        return []
    return [each for each in refused if each.node not in known]
