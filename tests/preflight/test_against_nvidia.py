"""The table agrees with NVIDIA's parser and builder on every model that they can judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest

from effdet_deploy.preflight import check_model
from effdet_deploy.preflight.tables import load_target
from tests.preflight.planted import ACCEPTED_IN_SILENCE, REFUSED, RTX, SOUND

if TYPE_CHECKING:
    from pathlib import Path

trt = pytest.importorskip("tensorrt_rtx_bindings", reason="needs TensorRT-RTX, not a GPU")

# The parser claims to know these operators, but they cannot be built: NMS has no kernel, and the
# others are plugins of a library that is not included.
KNOWN_BUT_NOT_BUILT = {"NonMaxSuppression", "NonZero", "RoiAlign"}
# Old operators that onnx no longer defines and the parser still reads.
NOT_IN_ONNX = {"ImageScaler", "ParametricSoftplus", "ScaledTanh"}
# Operators that this parser knows, but that are newer than the document of every release.
NEWER_THAN_THE_TABLE = {"CausalConvWithState", "LinearAttention"}

MODELS = {each.name: each.model for each in (*REFUSED, *ACCEPTED_IN_SILENCE)} | SOUND


@pytest.fixture(scope="module")
def builder():
    return trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))


def builds(builder, path: Path) -> bool:
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.INTERNAL_ERROR))
    if not parser.parse_from_file(str(path)):
        return False
    config = builder.create_builder_config()
    return builder.build_serialized_network(network, config) is not None


@pytest.mark.parametrize("name", MODELS)
def test_the_table_refuses_what_nvidia_refuses(name, builder, tmp_path, monkeypatch):
    monkeypatch.setattr("effdet_deploy.preflight.check.RTX_MODULE", "no_such_module")
    path = tmp_path / "model.onnx"
    path.write_bytes(MODELS[name].SerializeToString())
    refused = any(each.severity == "error" for each in check_model(path, RTX))
    assert refused != builds(builder, path)


def test_the_table_has_the_operators_of_the_parser(builder):
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.INTERNAL_ERROR))
    operators = {each.name for each in onnx.defs.get_all_schemas() if not each.domain}
    parsed = {each for each in operators if parser.supports_operator(each)}
    taken = set(load_target(RTX).operators)
    assert taken - operators <= NOT_IN_ONNX
    assert taken & operators <= parsed
    assert parsed - taken - NEWER_THAN_THE_TABLE == KNOWN_BUT_NOT_BUILT
