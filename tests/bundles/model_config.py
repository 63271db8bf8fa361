"""Triton's own definition of ``config.pbtxt``, from NVIDIA's client package."""

from __future__ import annotations

import importlib.util
from importlib.metadata import distribution
from typing import TYPE_CHECKING

from google.protobuf import text_format

if TYPE_CHECKING:
    from pathlib import Path


def _module():
    # The file is loaded by its path: importing it as part of its package would need gRPC.
    path = distribution("tritonclient").locate_file("tritonclient/grpc/model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pb = _module()


def parse(path: Path):
    """Return the ModelConfig in a file; an unknown field is an error."""
    return text_format.Parse(path.read_text(encoding="utf-8"), pb.ModelConfig())
