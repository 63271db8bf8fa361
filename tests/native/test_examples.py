"""The examples run unchanged and print the rows (detections) that Python finds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import effdet_deploy
from tests.native.building import BUILD, NATIVE, ROOT, build, onnxruntime_library, run
from tests.native.models import make_spec, printed_rows, write_model

DOCUMENT = ROOT / "docs" / "native.md"
C_THRESHOLD = 0.3
"""The score threshold of the example in C."""


@pytest.fixture(scope="session")
def built(has_onnxruntime):
    return build(BUILD, "effdet", "effdet-detect", "effdet-bench", "example_c")


@pytest.fixture(scope="session")
def case(built, tmp_path_factory):
    """A model, a picture as PNG and PPM, and the lines that are expected."""
    folder = tmp_path_factory.mktemp("examples")
    model = write_model(folder / "tiny.onnx", make_spec(batch=(1, 2)))
    random = np.random.default_rng(8)
    picture = Image.fromarray(random.integers(0, 256, (70, 110, 3), dtype=np.uint8))
    picture.save(folder / "scene.png")
    picture.save(folder / "scene.ppm")
    with effdet_deploy.load(model, "onnxruntime", "cpu") as detector:
        (found,) = detector.detect(picture)
    lines = printed_rows(found)
    assert len(lines) > 2
    return folder, lines


@pytest.fixture(scope="session")
def environment(built):
    return os.environ | {
        "EFFDET_ONNXRUNTIME_LIBRARY": str(onnxruntime_library()),
        "EFFDET_LIBRARY": str(built / "libeffdet.so"),
        "EFFDET_LIB_DIR": str(built),
        "LD_LIBRARY_PATH": str(built),
    }


@pytest.mark.parametrize("picture", ["scene.png", "scene.ppm"])
def test_effdet_detect_prints_the_rows_of_python(built, case, environment, picture):
    folder, lines = case
    command = [built / "tools" / "effdet-detect", folder / "tiny.onnx", folder / picture]
    assert run(*command, env=environment).splitlines() == lines


def test_effdet_detect_reads_palettes_gray_alpha_and_sixteen_bits_as_python_does(
    built, case, environment, tmp_path
):
    folder, _ = case
    random = np.random.default_rng(9)
    rgba = Image.fromarray(random.integers(0, 256, (50, 80, 4), dtype=np.uint8))
    deep = random.integers(0, 65536, (50, 80), dtype=np.uint16)
    pictures = {
        "rgba": rgba,
        "palette": rgba.convert("RGB").quantize(64),
        "gray": rgba.convert("L"),
        "deep": Image.fromarray(deep),
        "bit": rgba.convert("1"),
    }
    with effdet_deploy.load(folder / "tiny.onnx", "onnxruntime", "cpu") as detector:
        for name, picture in pictures.items():
            path = tmp_path / f"{name}.png"
            picture.save(path)
            command = [built / "tools" / "effdet-detect", "--json", folder / "tiny.onnx", path]
            printed = run(*command, env=environment)
            (found,) = detector.detect(path)
            scores = [float(each) for each in re.findall(r'"score": ([^,]+)', printed)]
            assert np.array_equal(np.float32(scores), found.scores), name


def test_the_program_in_c_is_the_one_in_the_document_and_finds_the_rows(built, case, environment):
    (program,) = re.findall(r"```c\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert program == (NATIVE / "examples" / "c" / "detect.c").read_text(encoding="utf-8")
    folder, lines = case
    with effdet_deploy.load(folder / "tiny.onnx", "onnxruntime", "cpu") as detector:
        (found,) = detector.detect(folder / "scene.png", C_THRESHOLD)
    assert 0 < len(found) < len(lines)
    command = [built / "examples" / "example_c", folder / "tiny.onnx", folder / "scene.ppm"]
    assert run(*command, env=environment).splitlines() == printed_rows(found)


@pytest.mark.parametrize("picture", ["absent.ppm", "scene.png"])
def test_the_program_in_c_names_a_file_that_is_not_a_ppm(built, case, environment, picture):
    folder, _ = case
    command = [built / "examples" / "example_c", folder / "tiny.onnx", folder / picture]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"'{folder / picture}' is missing or is not a binary PPM file (P6).\n"


@pytest.mark.parametrize("tool", ["effdet-detect", "effdet-bench"])
def test_the_help_of_a_tool_and_the_document_list_its_options(built, tool):
    program = built / "tools" / tool
    source = (NATIVE / "tools" / "arguments.hpp").read_text(encoding="utf-8")
    only_other = {"effdet-detect": {"--runs"}, "effdet-bench": {"--json", "--score-threshold"}}
    options = {*re.findall(r'option == "(--[a-z-]+)"', source)} - only_other[tool]
    assert len(options) > 5
    text = run(program, "--help")
    assert {*re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE)} == options
    page = DOCUMENT.read_text(encoding="utf-8")
    assert options <= {*re.findall(r"^\| `(--[a-z-]+)", page, re.MULTILINE)}
    for arguments, said in (((), text), (("--speed", "2"), "There is no option --speed.")):
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr


def test_the_program_with_opencv_draws_the_rows(built, case, environment, tmp_path):
    folder, _ = case
    program = tmp_path / "camera"
    includes = ("-I", NATIVE / "include", "-I", ROOT / "tests" / "native" / "opencv")
    source = NATIVE / "examples" / "cpp" / "camera.cpp"
    run("c++", "-std=c++17", *includes, source, "-o", program, "-L", built, "-leffdet")
    drawn = run(program, folder / "tiny.onnx", folder / "scene.ppm", env=environment).splitlines()
    with effdet_deploy.load(folder / "tiny.onnx", "onnxruntime", "cpu") as detector:
        (found,) = detector.detect(folder / "scene.png", 0.3)
    expected = []
    for label, box in zip(found.labels, found.boxes, strict=True):
        expected += [" ".join(f"{side:.2f}" for side in box), found.names[label]]
    assert drawn == expected
    assert len(expected) > 2


def test_the_binding_in_python_finds_the_rows(built, case, environment):
    folder, lines = case
    program = NATIVE / "examples" / "python" / "effdet_native.py"
    command = [sys.executable, program, built / "libeffdet.so", folder / "tiny.onnx"]
    assert run(*command, folder / "scene.png", env=environment).splitlines() == lines


@pytest.mark.native
def test_the_program_in_rust_finds_the_rows(built, case, environment):
    if shutil.which("cargo") is None:
        pytest.skip("cargo is not here: install Rust to run this example")
    folder, lines = case
    project = NATIVE / "examples" / "rust"
    target = BUILD / "cargo"
    command = ["cargo", "run", "--quiet", "--offline", "--manifest-path", project / "Cargo.toml"]
    command += ["--target-dir", target, "--", folder / "tiny.onnx", folder / "scene.ppm"]
    assert run(*command, env=environment).splitlines() == lines


@pytest.mark.native
def test_the_program_in_node_finds_the_rows(built, case, environment):
    if shutil.which("npm") is None:
        pytest.skip("npm is not here: install Node to run this example")
    folder, lines = case
    project = BUILD / "node"
    shutil.copytree(NATIVE / "examples" / "node", project, dirs_exist_ok=True)
    if not (project / "node_modules" / "koffi").is_dir():
        run("npm", "install", "--silent", "--no-audit", "--no-fund", cwd=project)
    command = ["node", "detect.js", folder / "tiny.onnx", folder / "scene.ppm"]
    printed = run(*command, env=environment, cwd=project).splitlines()
    # JavaScript rounds halves up, while C and Python round them to even.
    for found, expected in zip(printed, lines, strict=True):
        name, *numbers = found.split()
        assert name == expected.split()[0]
        wanted = [float(each) for each in expected.split()[1:]]
        assert [float(each) for each in numbers] == pytest.approx(wanted, abs=0.011)
