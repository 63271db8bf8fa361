"""What is wrong with a command is said before torch is imported, in one sentence and a remedy."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from effdet_deploy.cli import export_main

if TYPE_CHECKING:
    from pathlib import Path

WITHOUT_TORCH = """
import sys
sys.modules.update(dict.fromkeys(("torch", "timm", "torchvision")))
from effdet_deploy.cli import export_main
sys.exit(export_main(sys.argv[1:]))
"""
"""A None in sys.modules makes the import fail, as if the package were not installed."""


def run_without_torch(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def assert_refused(
    result: subprocess.CompletedProcess[str], code: int, *words: str, directory: Path
) -> None:
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert all(word in result.stderr for word in words), result.stderr
    assert not list(directory.iterdir()), "files were left behind"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--variant", "d9", "m.onnx"], ["d9", "Did you mean"]),
        (["--variant", "d0", "m.onx"], [".onx", "Did you mean .onnx"]),
        (["--variant", "d0", "m.onnx", "--num-clases", "3"], ["--num-clases", "--num-classes"]),
        (["--variant", "d0", "m.onnx", "--nms", "statik"], ["statik", "static"]),
    ],
    ids=["variant", "suffix", "flag", "choice"],
)
def test_unknown_names_are_refused_with_the_nearest(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export_main([*arguments, "--weights", "random"]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["m.onnx", "--fp16"], ["--target", "tensorrt", "openvino", "onnxruntime"]),
        (["m.onnx", "--fp16", "--int8"], ["--fp16 and --int8 contradict"]),
        (["m.torchscript", "--nms", "onnx"], ["--nms onnx", "static"]),
        (["m.onnx", "--no-verify", "--verify-images", "."], ["--verify-images", "--no-verify"]),
        (["m.onnx", "--candidates", "50"], ["--max-detections", "--candidates"]),
        (["m.onnx", "--batch", "8..1"], ["--batch", "ascending"]),
        (["m.onnx", "--batch", "many"], ["--batch", "many"]),
        (["m.onnx", "--image-size", "big"], ["--image-size", "big"]),
        (["m.onnx", "--opset", "99"], ["--opset", "18 to 23"]),
    ],
    ids=lambda value: "-".join(value[1:3]) if isinstance(value, list) else None,
)
def test_contradictions_are_refused_before_torch_is_imported(
    arguments: list[str], words: list[str], tmp_path: Path
) -> None:
    result = run_without_torch(*arguments, "--variant", "d0", "--weights", "random", cwd=tmp_path)
    assert_refused(result, 2, *words, directory=tmp_path)


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path) -> None:
    result = run_without_torch("m.onnx", "--variant", "d0", "--weights", "random", cwd=tmp_path)
    assert_refused(result, 4, "torch", "effdet-deploy[export]", directory=tmp_path)


def test_an_absent_directory_is_refused_before_the_model_is_built(tmp_path: Path) -> None:
    result = run_without_torch(
        "no/where/m.onnx", "--variant", "d0", "--weights", "random", cwd=tmp_path
    )
    assert_refused(result, 2, "no/where", "mkdir", directory=tmp_path)


def test_a_directory_that_takes_no_files_is_refused(tmp_path: Path) -> None:
    # Permission bits do not bind root, who runs CI; in /proc no user can create a file.
    result = run_without_torch(
        "/proc/m.onnx", "--variant", "d0", "--weights", "random", cwd=tmp_path
    )
    assert_refused(result, 2, "/proc", "written", directory=tmp_path)


def test_a_directory_as_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").mkdir()
    result = run_without_torch("m.onnx", "--variant", "d0", "--weights", "random", cwd=tmp_path)
    assert result.returncode == 2
    assert "is a directory" in result.stderr
