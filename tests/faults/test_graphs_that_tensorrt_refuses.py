"""Graphs that TensorRT would refuse are refused before it parses them, with every node's name."""

from __future__ import annotations

import pytest

from effdet_deploy.errors import ModelFileError
from effdet_deploy.preflight import check_model, require_fit, target_names
from tests.preflight.graphs import graph, node, top_k, value


@pytest.fixture
def _no_parser(monkeypatch):
    """Fail the test if it asks NVIDIA's parser."""

    def ask(path):
        raise AssertionError(f"a parser was asked about {path}")

    monkeypatch.setattr("effdet_deploy.preflight.check.rtx_findings", ask)


@pytest.mark.usefixtures("_no_parser")
@pytest.mark.parametrize("target", [each for each in target_names() if each != "tensorrt-rtx"])
@pytest.mark.parametrize("count", [3841, 5000])
def test_more_candidates_than_tensorrt_sorts_are_refused_before_parsing(tmp_path, target, count):
    path = tmp_path / "m.onnx"
    path.write_bytes(top_k(count).SerializeToString())
    with pytest.raises(ModelFileError) as caught:
        require_fit(path, target)
    assert str(count) in caught.value.cause
    assert "3840" in caught.value.cause
    assert "--candidates 3840" in caught.value.remedy
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("target", target_names())
def test_the_largest_number_of_candidates_that_tensorrt_sorts_is_taken(tmp_path, target):
    path = tmp_path / "m.onnx"
    path.write_bytes(top_k(3840).SerializeToString())
    assert check_model(path, target) == ()


@pytest.mark.parametrize("target", target_names())
def test_every_refused_node_is_reported_by_name(tmp_path, target):
    operators = ("Det", "Bernoulli", "Unique")
    nodes = [node(each, ["x"], [f"of_{each}"], name=f"layer.{each}") for each in operators]
    model = graph(nodes, [value(f"of_{each}", shape=None) for each in operators])
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError) as caught:
        require_fit(path, target)
    assert all(f"layer.{each}: " in caught.value.cause for each in operators)
    assert "\n" not in str(caught.value)
