"""An engine is asked for where TensorRT is missing: that is said first, before any work."""

from __future__ import annotations

import dataclasses

import pytest

from effdet_deploy.cli import export_main
from effdet_deploy.exporters import Artifact
from effdet_deploy.exporters.tensorrt import export as road
from tests.onnx_models import detector_spec, write_tiny

COMMAND = ["--variant", "d0", "--weights", "random", "--fp16"]


@pytest.fixture
def said_before(monkeypatch, capsys):
    """Put a tiny model in the place of an ONNX export; return what was said before the export."""
    said = []

    def export_tiny(_variant, output, options, _material, _progress):
        said.append(capsys.readouterr().err)
        spec = dataclasses.replace(detector_spec(), command=options.command)
        write_tiny(output, spec)
        return Artifact(output, spec, None, output.stat().st_size)

    monkeypatch.setattr(road.onnx, "export", export_tiny)
    monkeypatch.setenv("COLUMNS", "400")
    return said


def names_in(directory):
    return {each.name for each in directory.iterdir()}


def test_the_onnx_file_is_finished_and_the_commands_for_the_engine_are_shown(
    tmp_path, said_before, capsys
):
    assert export_main([*COMMAND, str(tmp_path / "d0.engine")]) == 4
    (announced,) = said_before
    assert "cannot be built here" in announced
    assert f"kept as '{tmp_path / 'd0.onnx'}'" in announced
    told = capsys.readouterr().err
    assert "effdet-deploy build d0.onnx d0.engine" in told
    assert "trtexec --onnx=d0.onnx --saveEngine=d0.engine --stronglyTyped" in told
    assert "Traceback" not in told
    assert names_in(tmp_path) == {"d0.onnx"}


def test_another_file_in_the_place_of_the_onnx_file_is_a_usage_error(tmp_path, said_before, capsys):
    (tmp_path / "d0.onnx").write_bytes(b"somebody's own")
    assert export_main([*COMMAND, str(tmp_path / "d0.engine")]) == 2
    assert "--keep-onnx" in capsys.readouterr().err
    assert said_before == []
    assert (tmp_path / "d0.onnx").read_bytes() == b"somebody's own"


def test_keep_onnx_says_where_the_onnx_file_goes(tmp_path, said_before, capsys):
    (tmp_path / "d0.onnx").write_bytes(b"somebody's own")
    kept = tmp_path / "kept.onnx"
    arguments = [*COMMAND, "--keep-onnx", str(kept), str(tmp_path / "d0.engine")]
    assert export_main(arguments) == 4
    assert "effdet-deploy build kept.onnx d0.engine" in capsys.readouterr().err
    assert names_in(tmp_path) == {"d0.onnx", "kept.onnx"}
