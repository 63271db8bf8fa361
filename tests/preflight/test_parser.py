"""Every error of NVIDIA's parser becomes a finding."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from effdet_deploy.preflight import check_model
from effdet_deploy.preflight.check import parser_findings, rtx_findings
from tests.preflight.graphs import graph as made
from tests.preflight.graphs import node, value
from tests.preflight.planted import REFUSED, RTX


@dataclass(frozen=True)
class ReportedError:
    """A stand-in for an error that NVIDIA's parser reports."""

    name: str
    operator: str
    text: str

    def node_name(self):
        return self.name

    def node_operator(self):
        return self.operator

    def desc(self):
        return self.text


@dataclass(frozen=True)
class Parser:
    """A stand-in for NVIDIA's parser, which reports these errors."""

    errors: tuple[ReportedError, ...]

    @property
    def num_errors(self):
        return len(self.errors)

    def get_error(self, index):
        return self.errors[index]


def test_every_error_is_reported_once_with_its_node_in_one_line():
    said = ReportedError("stem.conv", "Conv", "first line\n  second line")
    errors = (said, said, ReportedError("", "Cast", "no."), ReportedError("", "", "file"))
    found = parser_findings(Parser(errors))
    assert [each.node for each in found] == ["stem.conv", "Cast", ""]
    assert found[0].cause == "NVIDIA's parser refuses Conv: first line second line."
    assert found[1].cause == "NVIDIA's parser refuses Cast: no."
    assert found[2].cause == "NVIDIA's parser refuses the model: file."


@pytest.fixture(scope="module")
def _rtx():
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs TensorRT-RTX, not a GPU")


@pytest.mark.usefixtures("_rtx")
def test_the_real_parser_names_every_node_it_refuses(tmp_path):
    model = made(
        [node("Det", ["x"], ["a"], name="one"), node("Bernoulli", ["x"], ["y"], name="two")],
        [value("a", shape=(1, 3)), value("y")],
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert [each.node for each in rtx_findings(path)] == ["one", "two"]


@pytest.mark.usefixtures("_rtx")
def test_a_problem_that_only_the_parser_sees_is_found_too(tmp_path, monkeypatch):
    for rules in ("operators", "strong_typing", "quantization"):
        monkeypatch.setattr(f"effdet_deploy.preflight.{rules}.RULES", ())
    found = check_model(REFUSED[1].write(tmp_path), RTX)
    assert [(each.rule, each.node) for each in found] == [("parser", "bad")]


@pytest.mark.usefixtures("_rtx")
@pytest.mark.parametrize("planted", REFUSED[:6], ids=lambda each: each.name)
def test_a_finding_of_the_table_is_not_repeated_in_the_parsers_words(planted, tmp_path):
    found = check_model(planted.write(tmp_path), RTX)
    assert [each.rule for each in found] == [planted.rule]
