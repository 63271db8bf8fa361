"""`export` from its options to the written file; what it refuses is in tests/faults."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from effdet_deploy.cli import export_main, main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("command")
    labels = directory / "labels.txt"
    labels.write_text("cat\ndog\n")
    code = export_main(
        [
            *("--variant", "lite0", "--weights", "random", "--num-classes", "2"),
            *("--image-size", "128x160", "--labels", str(labels), "--box-format", "yxyx"),
            *("--json", str(directory / "result.json"), str(directory / "m.onnx")),
        ]
    )
    assert code == 0
    return directory


def test_the_result_says_what_was_written_and_how_it_compared(exported: Path) -> None:
    result = json.loads((exported / "result.json").read_text())
    assert result["path"] == str(exported / "m.onnx")
    assert result["verification"]["status"] == "passed"
    assert result["spec"]["input"]["height"] == 128
    assert result["spec"]["input"]["width"] == 160
    assert [each["name"] for each in result["spec"]["classes"]] == ["cat", "dog"]


def test_the_stored_command_has_base_names_and_leaves_the_output_out(exported: Path) -> None:
    command = json.loads((exported / "result.json").read_text())["spec"]["command"]
    # First what the user gave, in that order, then every other option with its default.
    given = "--variant lite0 --weights random --num-classes 2 --image-size 128x160 "
    assert command.startswith(f"effdet-export {given}--labels labels.txt --box-format yxyx --batch")
    assert str(exported) not in command
    assert "m.onnx" not in command


def test_the_last_lines_name_the_file_and_the_next_command(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = exported / "again.torchscript"
    arguments = ["--variant", "lite0", "--weights", "random", "--image-size", "128", str(target)]
    assert main(["export", *arguments, "--no-verify"]) == 0
    said = capsys.readouterr().out
    assert "[!] not verified: --no-verify was given" in said
    assert f"wrote {target}" in said
    assert said.rstrip().endswith(f"effdet-deploy detect {target} PICTURE.jpg")


def test_inspect_reads_what_export_wrote(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(exported / "m.onnx")]) == 0
    assert "tf_efficientdet_lite0" in capsys.readouterr().out
