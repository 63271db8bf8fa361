"""Build with NVIDIA's parser and builder, which need no GPU, and read the layers' precisions."""

from __future__ import annotations

import re

import pytest


class Build:
    """A strongly typed build of an ONNX graph, given as its serialized bytes."""

    def __init__(self, serialized: bytes) -> None:
        trt = pytest.importorskip("tensorrt_rtx_bindings")
        logger = _collecting_logger(trt)
        builder = trt.Builder(logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, logger)
        parsed = parser.parse(serialized)
        self.errors = [str(parser.get_error(index)) for index in range(parser.num_errors)]
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        self.engine = builder.build_serialized_network(network, config) if parsed else None
        self.layers = [line for line in logger.lines if line.startswith("Name: ")]

    def inputs_of_convolutions(self) -> dict[str, str]:
        """Map each convolution that kept its name to the type of its first input."""
        found = {}
        for line in self.layers:
            match = re.match(r"Name: (\S+?)_U\d+\S*, LayerType: correlation, ", line)
            if match:
                found[match.group(1)] = re.search(r"Datatype: (\w+)", line).group(1)
        return found

    def correlation_types(self) -> set[str]:
        """Return the input types of all layers that convolve, fused ones included."""
        return {
            re.search(r"Datatype: (\w+)", line).group(1)
            for line in self.layers
            if re.search(r"LayerType: correlation|Corr\w*_myl", line)
        }


def _collecting_logger(trt):
    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity, message) -> None:
            self.lines += [line.strip() for line in message.splitlines()]

    return Logger()
