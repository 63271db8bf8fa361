"""From a checkpoint to an engine: what is built, which files are kept, and what is said when."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from effdet_deploy.artifact.spec import BatchSpec, InputSpec, PrecisionSpec
from effdet_deploy.errors import (
    EffdetDeployWarning,
    MissingError,
    UnknownNameError,
    UsageError,
    VerificationError,
)
from effdet_deploy.exporters import Artifact, ExportOptions, export
from effdet_deploy.exporters.build_options import BuildOptions
from effdet_deploy.exporters.delivery import precision_file_path
from effdet_deploy.exporters.material import Material
from effdet_deploy.exporters.tensorrt import export as road
from effdet_deploy.exporters.tensorrt.other_machine import finish_commands
from effdet_deploy.files import sha256_file, sidecar_path
from effdet_deploy.progress import silent
from tests.onnx_models import detector_spec, write_tiny

RTX = ExportOptions(build=BuildOptions(backend="tensorrt-rtx"), command="effdet-export --this")
NOWHERE = ExportOptions(command="effdet-export --this")
"""The options for TensorRT itself, which is not installed where these tests run."""


@pytest.fixture
def exported(monkeypatch):
    """Put a tiny model in the place of an exported one; return the list of what was exported."""
    made: list[Path] = []

    def export_tiny(_variant, output, options, _material, _progress):
        made.append(output)
        assert options.target == "tensorrt"
        spec = laid_out_for_tensorrt(batch=options.batch)
        write_tiny(output, spec)
        record = {"sha256": sha256_file(output), "verification": {"status": "passed"}}
        sidecar_path(output).write_text(json.dumps({"spec": dataclasses.asdict(spec)} | record))
        return Artifact(output, spec, None, output.stat().st_size, ("a note",))

    monkeypatch.setattr(road.onnx, "export", export_tiny)
    return made


def laid_out_for_tensorrt(**fields):
    precision = PrecisionSpec("fp32", "tensorrt")
    return dataclasses.replace(
        detector_spec(**fields), precision=precision, command=NOWHERE.command
    )


def names_in(directory: Path) -> set[str]:
    return {each.name for each in directory.iterdir()}


@pytest.mark.parametrize("name", ["model.engine", "model.plan"])
def test_only_the_engine_and_its_sidecar_are_left(name, exported, tmp_path):
    artifact = export("d0", tmp_path / name, RTX)

    assert names_in(tmp_path) == {name, f"{name}.json"}
    assert json.loads(artifact.sidecar.read_text())["verified"] == "onnx"
    assert artifact.notes[0] == "a note"
    assert "the engine was built by tensorrt-rtx" in artifact.notes[1]


def test_the_onnx_file_is_kept_where_asked(exported, tmp_path):
    kept = tmp_path / "kept.onnx"

    export("d0", tmp_path / "model.engine", dataclasses.replace(RTX, keep_onnx=kept))

    assert exported == [kept]
    assert {"kept.onnx", "model.engine"} <= names_in(tmp_path)


def test_without_tensorrt_the_onnx_file_is_finished_and_the_commands_are_given(exported, tmp_path):
    output = tmp_path / "model.engine"
    options = dataclasses.replace(NOWHERE, batch=BatchSpec(1, 2, 4))

    with (
        pytest.warns(EffdetDeployWarning, match="a note"),
        pytest.warns(EffdetDeployWarning, match="cannot be built here"),
        pytest.raises(MissingError) as caught,
    ):
        export("d0", output, options)

    assert caught.value.exit_code == 4
    assert "effdet-deploy build model.onnx model.engine" in caught.value.remedy
    assert "trtexec --onnx=model.onnx --saveEngine=model.engine" in caught.value.remedy
    assert names_in(tmp_path) == {"model.onnx", "model.onnx.json"}


def test_a_missing_tensorrt_is_announced_before_work_starts(exported, tmp_path, monkeypatch):
    """Tests turn warnings into errors, so the warning ends the export; no file may exist then."""
    with pytest.raises(EffdetDeployWarning, match=r"kept as '.*model\.onnx'"):
        export("d0", tmp_path / "model.engine", NOWHERE)

    assert exported == []


NOT_FOR_AN_ENGINE = dataclasses.replace(detector_spec(), command=NOWHERE.command)
"""The spec of an ONNX file that names the command of NOWHERE, but is not for TensorRT."""


@pytest.mark.parametrize(
    "spec", [detector_spec(), NOT_FOR_AN_ENGINE], ids=["another command", "not for an engine"]
)
def test_without_tensorrt_another_onnx_file_is_not_replaced(spec, exported, tmp_path):
    other = tmp_path / "model.onnx"
    write_tiny(other, spec)
    content = other.read_bytes()

    with pytest.raises(UsageError, match="another file has the name") as caught:
        export("d0", tmp_path / "model.engine", NOWHERE)

    assert "--keep-onnx" in caught.value.remedy
    assert exported == []
    assert other.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_without_tensorrt_a_file_of_another_kind_is_not_replaced(content, exported, tmp_path):
    (tmp_path / "model.onnx").write_bytes(content)

    with pytest.raises(UsageError, match="another file has the name"):
        export("d0", tmp_path / "model.engine", NOWHERE)


def test_without_tensorrt_the_same_command_may_be_run_again(exported, tmp_path):
    for _ in range(2):
        with (
            pytest.warns(EffdetDeployWarning, match="a note"),
            pytest.warns(EffdetDeployWarning, match="cannot be built here"),
            pytest.raises(MissingError, match="is ready"),
        ):
            export("d0", tmp_path / "model.engine", NOWHERE)

    assert len(exported) == 2


def test_an_onnx_file_that_fails_its_verification_is_kept(tmp_path, monkeypatch):
    def fail(_variant, output, _options, _material, _progress):
        failed = output.with_name(output.name + ".failed")
        write_tiny(failed)
        sidecar_path(failed).write_text("{}")
        raise VerificationError("It differs.", "")

    monkeypatch.setattr(road.onnx, "export", fail)

    with pytest.raises(VerificationError, match=r"no engine was built.*model\.onnx\.failed"):
        export("d0", tmp_path / "model.engine", RTX)

    assert names_in(tmp_path) == {"model.onnx.failed", "model.onnx.failed.json"}


def test_a_budget_that_cannot_be_met_ends_with_its_own_error(tmp_path, monkeypatch):
    def fail(*_):
        raise VerificationError("The budget cannot be met.", "Allow more.")

    monkeypatch.setattr(road.onnx, "export", fail)

    with pytest.raises(VerificationError, match="budget cannot be met"):
        export("d0", tmp_path / "model.engine", RTX)

    assert names_in(tmp_path) == set()


@pytest.fixture
def exported_in_int8(exported, monkeypatch):
    export_tiny = road.onnx.export

    def export_with_precision_file(variant, output, *rest):
        precision_file_path(output).write_text("new")
        return export_tiny(variant, output, *rest)

    monkeypatch.setattr(road.onnx, "export", export_with_precision_file)


def test_the_precision_file_of_an_int8_engine_is_kept_beside_it(exported_in_int8, tmp_path):
    export("d0", tmp_path / "model.engine", RTX)

    names = ("model.engine", "model.engine.json", "model.engine.precision.json")
    assert names_in(tmp_path) == set(names)


def test_a_failed_build_leaves_the_precision_file_of_the_old_engine(
    exported_in_int8, tmp_path, monkeypatch
):
    """The old engine stays after a failed build, and must keep its own precision file."""

    def fail(*_arguments, **_options):
        raise MissingError("The memory ran out.", "Free some.")

    monkeypatch.setattr(road, "build_engine", fail)
    old = tmp_path / "model.engine.precision.json"
    old.write_text("old")

    with pytest.raises(MissingError):
        export("d0", tmp_path / "model.engine", RTX)

    assert old.read_text() == "old"


@pytest.mark.parametrize("is_given", [True, False])
def test_a_precision_file_that_the_user_gives_stays_as_it_was_written(
    is_given, exported_in_int8, tmp_path
):
    """It lies where the engine's own precision file goes, which would replace it."""
    precision_file = tmp_path / "model.engine.precision.json"
    precision_file.write_text("edited")
    file = {"precision_file": precision_file} if is_given else {}
    options = dataclasses.replace(RTX, precision="int8", calibration=tmp_path, **file)
    road.export("d0", tmp_path / "model.engine", options, Material(), silent)
    assert precision_file.read_text() == ("edited" if is_given else "new")


@pytest.mark.parametrize(
    "options", [{"build": BuildOptions(tf32=True)}, {"keep_onnx": Path("kept.onnx")}]
)
def test_engine_options_are_refused_for_other_outputs(options, tmp_path):
    with pytest.raises(UsageError, match=r"but OUTPUT ends in '\.onnx'"):
        export("d0", tmp_path / "model.onnx", ExportOptions(**options))


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="output suffix"):
        export("d0", tmp_path / "model.trt", RTX)


def test_the_commands_for_another_machine_repeat_the_options():
    options = BuildOptions(workspace=2.0, opt_level=5, refit=True, hardware_compatible="ampere+")
    size, batch = InputSpec(384, 640), BatchSpec(1, 4, 8)

    ours, theirs = finish_commands(Path("a b.onnx"), Path("d2.engine"), options, size, batch)

    assert ours == (
        "effdet-deploy build 'a b.onnx' d2.engine --workspace 2.0 --opt-level 5 "
        "--hardware-compatible ampere+ --refit"
    )
    assert theirs == (
        "trtexec '--onnx=a b.onnx' --saveEngine=d2.engine --stronglyTyped "
        "--minShapes=images:1x384x640x3 --optShapes=images:4x384x640x3 "
        "--maxShapes=images:8x384x640x3 --noTF32 --memPoolSize=workspace:2048M "
        "--builderOptimizationLevel=5 --hardwareCompatibilityLevel=ampere+ --refit"
    )
