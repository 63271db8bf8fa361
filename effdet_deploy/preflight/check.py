"""Preflight: does TensorRT accept this ONNX file, and does it compute what the file says?

A table (:mod:`effdet_deploy.preflight.tables`) gives the answer, so neither TensorRT nor a GPU is
needed. For ``tensorrt-rtx``, NVIDIA's own parser is asked too, if it is installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from effdet_deploy.errors import ModelFileError, require_package
from effdet_deploy.preflight.finding import Finding
from effdet_deploy.preflight.tables import load_target

if TYPE_CHECKING:
    from pathlib import Path

    from effdet_deploy.preflight.tables import Target

_PARSED_HERE = "tensorrt-rtx"
"""The target whose own parser is asked too."""
RTX_MODULE = "tensorrt_rtx_bindings"
"""The module with the parser of TensorRT-RTX, which needs no GPU."""


def check_model(path: Path, target: str) -> tuple[Finding, ...]:
    """Return all problems of the ONNX file ``path`` for ``target``.

    Args:
        path: an ONNX file; external weights are not read.
        target: ``"tensorrt-10"``, ``"tensorrt-11"`` or ``"tensorrt-rtx"``.

    Returns:
        The findings, errors first, in the order of the nodes; empty if the model fits.

    Raises:
        UnknownNameError: the target is unknown.
        ModelFileError: the file is not a readable ONNX file.
        MissingPackageError: the package ``onnx`` is not installed.
    """
    return _check(path, load_target(target), ask_parser=target == _PARSED_HERE)


def require_fit(path: Path, target: str) -> tuple[Finding, ...]:
    """Check ``path`` before it is built for ``target``; return the warnings.

    NVIDIA's parser is not asked, because the builder's own parser comes next.

    Raises:
        ModelFileError: the target refuses the model; the message names every reason and node.
        UnknownNameError, MissingPackageError: as :func:`check_model`.
    """
    wanted = load_target(target)
    findings = _check(path, wanted, ask_parser=False)
    errors = [each for each in findings if each.severity == "error"]
    if not errors:
        return findings
    nodes: dict[str, list[str]] = {}
    for each in errors:
        nodes.setdefault(each.cause.rstrip("."), []).append(each.node)
    causes = "; ".join(
        ": ".join(filter(None, (", ".join(filter(None, named)), cause)))
        for cause, named in nodes.items()
    )
    remedies = dict.fromkeys(each.remedy for each in errors)
    raise ModelFileError(f"{wanted.title} refuses '{path.name}': {causes}.", " ".join(remedies))


def require_onnx() -> None:
    """Check that the package ``onnx`` is installed.

    Raises:
        MissingPackageError: it is not installed.
    """
    require_package("onnx", "checking a model for TensorRT")


def _check(path: Path, target: Target, *, ask_parser: bool) -> tuple[Finding, ...]:
    require_onnx()
    from effdet_deploy.preflight import operators, quantization, strong_typing
    from effdet_deploy.preflight.graph import read_graph

    graph = read_graph(path)
    rules = (*operators.RULES, *strong_typing.RULES, *quantization.RULES)
    findings = [finding for rule in rules for finding in rule(graph, target)]
    if ask_parser:
        known = {each.node for each in findings if each.severity == "error"}
        refused = rtx_findings(path)
        # If errors are already known, a refusal of the whole model adds nothing.
        if not known or any(each.node for each in refused):
            findings += [each for each in refused if each.node not in known]
    order = {node.name: index for index, node in enumerate(graph.nodes)}
    findings.sort(key=lambda each: (each.severity != "error", order.get(each.node, -1)))
    return tuple(dict.fromkeys(findings))


def rtx_findings(path: Path) -> tuple[Finding, ...]:
    """Return what the parser of TensorRT-RTX refuses in ``path``; empty if there is no parser."""
    try:
        trt = importlib.import_module(RTX_MODULE)
    except ImportError:
        return ()
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(str(path)):
        return ()
    return parser_findings(parser)


def parser_findings(parser: Any) -> tuple[Finding, ...]:
    """Return the errors of an ``OnnxParser`` that has refused a model, without repetitions.

    It works with the parsers of ``tensorrt`` 10.x, 11.x and ``tensorrt-rtx``.
    """
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    findings = [
        Finding(
            "parser",
            error.node_name() or error.node_operator(),
            f"NVIDIA's parser refuses {error.node_operator() or 'the model'}: {reason}.",
            f"Export the model without {error.node_operator() or 'what the parser refuses'}.",
        )
        for error in errors
        for reason in (" ".join(str(error.desc()).split()).removesuffix("."),)
    ]
    return tuple(dict.fromkeys(findings))
