"""The commands that the pages show, run one after another as a reader would type them.

The digits detector and its scenes stand in for the reader's own files and for the published weights
of D0; random weights stand in for other published weights. Nothing is fetched. Commands that need a
GPU are not run.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_pages import FENCED, NAMES, in_blocks, parsed

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "examples/digits/digits_d0.safetensors"
NOT_RUN = re.compile(
    r"\.engine\b(?!.*tensorrt-rtx)"  # needs a GPU
    r"|effdet-deploy batch |clip\.mp4|rtsp:|model\.onnx 0 "  # run by tests of their own
    r"|person,car|sys\.argv|…"  # needs other classes, arguments, or what the reader must fill in
)
CHECKPOINTS = ("mine.pth", "my_checkpoint.pth", "W")
MODELS = ("mine.onnx", "model.onnx", "d0.onnx", "d2.onnx", "d0_fp16.onnx", "d0_int8.onnx")
FOLDERS = ("images", "pictures", "PICTURES", "DIR", "val", "aerial")
STAND_INS = (
    # The digits detector has ten classes, and its checkpoint holds their names.
    (r', labels=Path\("train.json"\), num_classes=20', ", image_size=(128, 128)"),
    (r"^(effdet-export --variant d0(?!.*--weights).*)", r"\1 --weights W"),
    (r"^(effdet-export(?!.*--weights).*)", r"\1 --weights random --image-size 128"),
    (r"^(effdet-export .*--weights (?:W|m\w+\.pth).*)", r"\1 --image-size 128"),
    # Without --under-load, a busy machine would give no times.
    (r"^(effdet-deploy bench .*)", r"\1 --under-load --seconds 5"),
)


def lines_of(page: str) -> list[str]:
    """Return the command lines of a page that these tests can run."""
    text = NAMES[page].read_text(encoding="utf-8")
    return [each for each in in_blocks(text) if not NOT_RUN.search(each)]


def with_stand_ins(line: str) -> str:
    """Return a command line with the files of these tests in place of the reader's own."""
    for pattern, replacement in STAND_INS:
        line = re.sub(pattern, replacement, line)
    return line


def run(line: str, folder: Path) -> None:
    line = line.replace("effdet-export", "effdet-deploy export")
    python(shlex.split(line.replace("effdet-deploy", "python -m effdet_deploy"))[1:], folder)


def python(arguments: list[str], folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "EFFDET_DEPLOY_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def readers_files(tmp_path_factory):
    """Return a folder with every file that the commands of the pages read."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "examples").symlink_to(ROOT / "examples")
    run("python examples/digits/scenes.py --split train --count 16 scenes", folder)
    run("python examples/digits/scenes.py --split test --count 20 test", folder)
    for name in CHECKPOINTS:
        shutil.copy(WEIGHTS, folder / name)
    run("effdet-export --weights mine.pth --image-size 128 mine.onnx", folder)
    for name in MODELS[1:]:
        shutil.copy(folder / "mine.onnx", folder / name)
        shutil.copy(folder / "mine.onnx.json", folder / f"{name}.json")
    for name in FOLDERS:
        shutil.copytree(folder / "test/images", folder / name)
    for name in ("annotations.json", "val.json", "val/annotations.json"):
        shutil.copy(folder / "test/annotations.json", folder / name)
    for name in ("photo.jpg", "street.jpg"):
        shutil.copy(folder / "scenes/images/train_0_00000.png", folder / name)
    (folder / "list.txt").write_text("photo.jpg\nstreet.jpg\n")
    names = [each["name"] for each in json.loads((folder / "val.json").read_text())["categories"]]
    (folder / "classes.txt").write_text("\n".join(names))
    return folder


PAGES = [each for each in NAMES if lines_of(each)]


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_are_valid_with_stand_ins(page):
    for line in lines_of(page):
        parsed(with_stand_ins(line), whole=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page, readers_files, tmp_path):
    folder = tmp_path / "here"
    shutil.copytree(readers_files, folder, symlinks=True)
    for line in lines_of(page):
        run(with_stand_ins(line), folder)
    for language, block in FENCED.findall(NAMES[page].read_text(encoding="utf-8")):
        if language == "python" and not NOT_RUN.search(block):
            python(["-c", with_stand_ins(block)], folder)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_first_page_finds_digits(readers_files):
    run("effdet-deploy detect mine.onnx scenes/images --output found", readers_files)
    found = json.loads((readers_files / "found/detections.json").read_text(encoding="utf-8"))
    assert sum(len(each["detections"]) for each in found["images"]) > 50
