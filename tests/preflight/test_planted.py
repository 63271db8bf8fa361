"""Every planted problem is found at its node, and nothing is found in sound models."""

from __future__ import annotations

import pytest

from effdet_deploy.preflight import check_model, target_names
from tests.preflight.graphs import PLUGIN, efficient_nms
from tests.preflight.planted import ACCEPTED_IN_SILENCE, OF_ONE_VERSION, REFUSED, SOUND, Planted

PLANTED = (*REFUSED, *ACCEPTED_IN_SILENCE, *OF_ONE_VERSION)


def named(planted: Planted) -> str:
    return planted.name


@pytest.fixture(autouse=True)
def _table_alone(monkeypatch):
    """The table must find each problem by itself, without NVIDIA's parser."""
    monkeypatch.setattr("effdet_deploy.preflight.check.RTX_MODULE", "no_such_module")


@pytest.mark.parametrize("planted", PLANTED, ids=named)
def test_the_planted_problem_is_found_at_its_node(planted, tmp_path):
    found = check_model(planted.write(tmp_path), planted.target)
    matching = [each for each in found if each.rule == planted.rule and each.node == planted.node]
    assert matching, found
    assert matching[0].severity == planted.severity
    assert matching[0].cause.endswith(".")
    assert matching[0].remedy.endswith(".")


@pytest.mark.parametrize("planted", ACCEPTED_IN_SILENCE, ids=named)
def test_a_problem_that_rtx_accepts_silently_is_a_warning(planted, tmp_path):
    found = check_model(planted.write(tmp_path), planted.target)
    assert {each.severity for each in found} == {"warning"}


@pytest.mark.parametrize("target", target_names())
@pytest.mark.parametrize("name", SOUND)
def test_nothing_is_found_in_a_sound_model(name, target, tmp_path):
    path = tmp_path / "sound.onnx"
    path.write_bytes(SOUND[name].SerializeToString())
    assert check_model(path, target) == ()


@pytest.mark.parametrize("target", ["tensorrt-10", "tensorrt-11"])
def test_a_complete_plugin_is_taken_by_releases_with_plugins(target, tmp_path):
    path = tmp_path / "plugin.onnx"
    path.write_bytes(efficient_nms(**PLUGIN).SerializeToString())
    assert check_model(path, target) == ()
