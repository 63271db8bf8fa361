"""With ranges made hostile on purpose, naive quantization fails and the default policy works."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from effdet_deploy.artifact.spec import INPUT_NAME
from effdet_deploy.onnxgraph.running import graph_inputs, open_session
from effdet_deploy.precision.int8.quantizer import Quantizer, Recipe
from effdet_deploy.synthetic import structured_pictures
from tests.precision.tiny_network import CHANNELS, SIDE, network_spec, tiny_network

BATCHES = list(graph_inputs(structured_pictures(6, SIDE, SIDE, 5), network_spec()))
# Signal-to-noise ratios; at 0 dB the error is as large as the result itself. Naive quantization
# gives less than COLLAPSED_DB, and the default policy more than WORKS_DB. The product that the
# default policy keeps in FP32 would have less than DROWNED_DB in INT8.
COLLAPSED_DB = 5.0
WORKS_DB = 12.0
DROWNED_DB = 10.0


@pytest.fixture(scope="module")
def hostile():
    """A network with outliers among its predict weights and very different stem channels.

    The ranges of the stem's channels differ by up to a factor of a thousand.
    """
    model = tiny_network()
    random = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name == "backbone.conv_stem.conv.weight":
            values *= 10 ** random.uniform(-1.5, 1.5, (len(values), 1, 1, 1)).astype(np.float32)
        elif tensor.name in ("class_net.predict.weight", "box_net.predict.weight"):
            values[0, 0] *= 300
        else:
            continue
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


class Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self.feeds = iter([{INPUT_NAME: batch} for batch in BATCHES])

    def get_next(self):
        return next(self.feeds, None)


def heads(model):
    session = open_session(model)
    return [session.run(None, {INPUT_NAME: batch}) for batch in BATCHES]


def worst_class_snr(exact, mine) -> float:
    """Return the SNR of the class whose logits suffer most."""
    ones, others = (np.concatenate([run[0] for run in side]) for side in (exact, mine))
    noise = ((ones - others) ** 2).sum(axis=(0, 1))
    spread = ((ones - ones.mean(axis=(0, 1))) ** 2).sum(axis=(0, 1))
    return float((10 * np.log10(spread / noise)).min())


def test_naive_quantization_fails_where_the_default_policy_works(hostile, tmp_path):
    onnx.save(hostile, tmp_path / "hostile.onnx")
    quantize_static(tmp_path / "hostile.onnx", tmp_path / "naive.onnx", Reader())
    quantizer = Quantizer(hostile, BATCHES, "openvino", Recipe(), tmp_path / "cache")
    exact = heads(hostile)
    naive = worst_class_snr(exact, heads(onnx.load(tmp_path / "naive.onnx")))
    ours = worst_class_snr(exact, heads(quantizer.quantized(quantizer.default())))
    assert naive < COLLAPSED_DB
    assert ours > WORKS_DB


def test_a_product_that_rounding_would_drown_stays_fp32(tmp_path):
    """The ranges of the product's input channels differ by a factor of up to a thousand.

    Its weights undo that, so the scores do not change.
    """
    model = tiny_network(table=True)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    factor = 10 ** np.random.default_rng(0).uniform(-1.5, 1.5, CHANNELS).astype(np.float32)
    table, name = "class_net.predict.reshape", "class_net.predict.conv_pw.gemm"
    weight = numpy_helper.to_array(tensors[f"{name}.weight"]) / factor[:, np.newaxis]
    tensors[f"{name}.weight"].CopyFrom(numpy_helper.from_array(weight, f"{name}.weight"))
    model.graph.initializer.append(numpy_helper.from_array(factor, "factor"))
    gemm = next(node for node in model.graph.node if node.name == name)
    position = list(model.graph.node).index(gemm)
    model.graph.node.insert(position, helper.make_node("Mul", [table, "factor"], ["apart"]))
    gemm.input[0] = "apart"
    quantizer = Quantizer(model, BATCHES, "openvino", Recipe(), tmp_path / "cache")
    exact = heads(model)
    assert quantizer.drowned[name] < DROWNED_DB
    assert name not in quantizer.default()
    drowned = heads(quantizer.quantized([*quantizer.default(), name]))
    assert worst_class_snr(exact, drowned) < DROWNED_DB
    assert worst_class_snr(exact, heads(quantizer.quantized(quantizer.default()))) > WORKS_DB
