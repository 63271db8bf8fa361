"""The verdict of NVIDIA's own parser, where one is installed: TensorRT-RTX needs no GPU for it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from effdet_deploy.preflight.finding import Finding

if TYPE_CHECKING:
    from pathlib import Path

RTX_MODULE = "tensorrt_rtx_bindings"


def rtx_findings(path: Path) -> tuple[Finding, ...]:
    """Return what the parser of TensorRT-RTX refuses in ``path``; nothing where it is missing."""
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
    """Return every error of an ``OnnxParser`` that has refused a model, once each.

    Works with the parsers of ``tensorrt`` 10.x, 11.x and ``tensorrt-rtx``.
    """
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    findings = [
        Finding(
            "parser",
            error.node_name() or error.node_operator(),
            f"NVIDIA's parser refuses {error.node_operator() or 'the model'}: {reason}.",
            "Export the model without it.",
        )
        for error in errors
        for reason in (" ".join(str(error.desc()).split()).removesuffix("."),)
    ]
    return tuple(dict.fromkeys(findings))
