"""Any text on the command line, and any value in a checkpoint or a graph, is read or refused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effdet_deploy.artifact.spec import HEAD_OUTPUTS
from effdet_deploy.cli.options import positive_numbers
from effdet_deploy.detection.thresholds import read_thresholds, thresholds_by_class
from effdet_deploy.errors import EffdetDeployError
from effdet_deploy.exporters.option_text import (
    parse_batch,
    parse_candidates,
    parse_channels,
    parse_image_size,
)
from effdet_deploy.exporters.options import ExportOptions
from effdet_deploy.onnxgraph.index import (
    consumers,
    initializers,
    insert_after,
    network_nodes,
    producers,
)
from effdet_deploy.pytorch.network import get_config
from tests.fuzz.parsers import PARSERS, STATE
from tests.fuzz.test_files import judge

ONE_HUNDRED_EXAMPLES = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
PARSERS_OF_OPTIONS = {
    "--batch": lambda text: ExportOptions(batch=parse_batch(text)),
    "--candidates": lambda text: ExportOptions(candidates=parse_candidates(text)),
    "--image-size": parse_image_size,
    "--mean": lambda text: parse_channels("--mean", text, float),
    "--fill": lambda text: parse_channels("--fill", text, int),
    "--threads": lambda text: positive_numbers("--threads", text),
    "--variant": get_config,
    "--score-threshold": lambda text: thresholds_by_class(read_thresholds(text), ("a",), 0.01),
}
NUMBERS = st.integers().map(str) | st.floats().map(str) | st.sampled_from(["1" * 5000, "²", "٣"])
OPTION_TEXTS = (
    st.text(max_size=40)
    | NUMBERS
    | st.lists(NUMBERS, min_size=1, max_size=4).map(",".join)
    | st.lists(NUMBERS, min_size=1, max_size=3).map("..".join)
    | st.lists(NUMBERS, min_size=1, max_size=3).map("x".join)
    | st.sampled_from(["phi:2.5", "phi:1e99", "phi:nan", "a" * 5000, "/" + "b" * 300, "\0"])
)


@pytest.mark.parametrize("option", PARSERS_OF_OPTIONS)
@ONE_HUNDRED_EXAMPLES
@given(text=OPTION_TEXTS)
def test_any_text_is_read_or_refused(option, text):
    with contextlib.suppress(EffdetDeployError):
        PARSERS_OF_OPTIONS[option](text)


ODD = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ODD |= st.sampled_from([10**400, "tf_efficientdet_d0", "mean", torch.zeros(2), torch.zeros(0)])
FIELDS = ("image_size", "mean", "std", "fill_color", "num_classes", "aspect_ratios", "num_scales")
FIELDS += ("in_chans", "max_level", "anchor_scale", "octave_scales", "backbone_indices", "act_type")
PLACES = ("args", "hparams", "config", "model", "meta", "classes", "state_dict", "ema")
VALUES = st.recursive(
    ODD,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(FIELDS + PLACES), inner, max_size=4)
    ),
    max_leaves=12,
)


@ONE_HUNDRED_EXAMPLES
@given(
    beside=st.dictionaries(st.sampled_from(FIELDS + PLACES), VALUES, max_size=5),
    shapes=st.dictionaries(
        st.sampled_from(list(STATE)), st.lists(st.integers(0, 40), max_size=5), max_size=3
    ),
)
def test_any_value_in_a_checkpoint_is_read_or_refused(tmp_path, beside, shapes):
    small = {name: torch.zeros(each) for name, each in shapes.items() if _is_small(each)}
    torch.save({"model_state_dict": STATE | small, **beside}, tmp_path / "w.pth")
    judge(PARSERS["torch zip"], tmp_path / "w.pth", "values")


def _is_small(shape):
    return torch.Size(shape).numel() < 100_000


@ONE_HUNDRED_EXAMPLES
@given(overrides=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4))
def test_any_value_of_a_config_is_taken_or_refused(overrides):
    with contextlib.suppress(EffdetDeployError):
        config = get_config("tf_efficientdet_d0").replace(overrides)
        assert len(config.octaves) == config.num_scales
        assert config.feature_sizes


NAMES = st.sampled_from(["", "a", "b", "c", "d", *HEAD_OUTPUTS, "preprocess.x"])
NODES = st.builds(
    onnx.helper.make_node,
    st.sampled_from(["Conv", "Reshape", "QuantizeLinear", "DequantizeLinear", "Concat", "If"]),
    st.lists(NAMES, max_size=3),
    st.lists(NAMES, max_size=2),
    NAMES,
)


@ONE_HUNDRED_EXAMPLES
@given(nodes=st.lists(NODES, max_size=8))
def test_any_graph_is_indexed_or_refused(nodes):
    graph = onnx.helper.make_graph(
        nodes, "g", [onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [1])], []
    )
    made, read = producers(graph), consumers(graph)
    assert all(name in node.output for name, node in made.items())
    assert all(name in node.input for name, each in read.items() for node in each)
    assert initializers(graph) == {}
    with contextlib.suppress(EffdetDeployError):
        found = network_nodes(graph)
        assert all(each in nodes for each in found)
    added = onnx.helper.make_node("Identity", ["a"], ["copy"])
    insert_after(graph, {"a": [added]})
    assert [each for each in graph.node if each.op_type != "Identity"] == nodes


def test_the_tests_above_try_every_parser_of_an_option():
    text = Path(parse_batch.__code__.co_filename).read_text(encoding="utf-8")
    parsers = {line.split("(")[0][4:] for line in text.splitlines() if line.startswith("def parse")}
    assert parsers == {"parse_batch", "parse_candidates", "parse_image_size", "parse_channels"}
