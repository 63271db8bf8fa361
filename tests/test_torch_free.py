"""Running a model must need neither torch nor timm, nor anything beyond the base install."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import effdet_deploy
from tests.onnx_models import SIDE, write_tiny

PACKAGE = Path(effdet_deploy.__file__).parent
# Only these may import torch and timm: a folder, and a module that is loaded by its name.
TORCH_MODULES = ("pytorch", "runtimes.torchscript")
TORCH = ("torch", "torchvision", "timm", "effdet")
# Packages that only an extra installs.
EXTRAS = (
    *(*TORCH, "onnx", "onnxscript", "onnxsim", "safetensors", "openvino", "pycocotools"),
    *("jinja2", "matplotlib", "ray", "pyarrow", "fsspec"),
)

BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked by the test", name=name)
sys.meta_path.insert(0, Blocked())
"""


def run_without(names: tuple[str, ...], code: str, *arguments: object, cwd: Path | None = None):
    return subprocess.run(
        [sys.executable, "-c", BLOCK.format(names=names) + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200"},
        timeout=120,
    )


def torch_free_modules() -> list[str]:
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        owner = any(name == each or name.startswith(f"{each}.") for each in TORCH_MODULES)
        # A folder without __init__.py holds example programs, which have imports of their own.
        is_module = (path.parent / "__init__.py").is_file() and parts[-1] != "__main__"
        if is_module and not owner:
            names.append(f"effdet_deploy.{name}".rstrip("."))
    return names


def test_every_module_outside_the_pytorch_folder_imports_without_torch():
    code = (
        "import importlib, json\n"
        "failed = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except BaseException as error:\n"
        "        failed[name] = repr(error)\n"
        "print(json.dumps(failed))"
    )
    done = run_without(TORCH, code, *torch_free_modules())
    assert json.loads(done.stdout) == {}, done.stderr
    assert {"effdet_deploy.cli.export", "effdet_deploy.exporters.onnx"} <= {*torch_free_modules()}


def test_imports_are_really_blocked():
    """Otherwise the other tests of this file would prove nothing."""
    done = run_without(TORCH, "import torch")
    assert "blocked by the test" in done.stderr


@pytest.fixture
def workplace(tmp_path):
    write_tiny(tmp_path / "model.onnx")
    Image.fromarray(np.full((SIDE, SIDE, 3), 255, np.uint8)).save(tmp_path / "white.png")
    return tmp_path


TOOL = "from effdet_deploy.cli import main\nsys.exit(main())"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["detect", "model.onnx", "white.png", "-o", "out"], "circle"),
        (["inspect", "model.onnx"], "detection_boxes"),
        (["doctor"], "ONNX Runtime"),
        (["compare", "model.onnx", "--reference", "model.onnx", "--images", "."], "passed"),
        (["bench", "model.onnx", "--runs", "1", "--max-runs", "1", "--under-load"], "model.onnx"),
        (["--help"], "detect"),
    ],
)
def test_the_base_install_is_enough_for(workplace, arguments, shown):
    done = run_without(EXTRAS, TOOL, *arguments, cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout


def test_building_needs_onnx_beside_the_base_install(workplace):
    arguments = ["build", "model.onnx", "model.engine", "--backend", "tensorrt-rtx"]

    without = run_without(EXTRAS, TOOL, *arguments, cwd=workplace)
    with_it = run_without(
        tuple(each for each in EXTRAS if each != "onnx"), TOOL, *arguments, cwd=workplace
    )

    assert without.returncode == 4
    assert "pip install onnx" in without.stderr
    assert with_it.returncode == 0, with_it.stderr
    assert "wrote" in with_it.stdout


def test_the_library_detects_with_the_base_install(workplace):
    code = (
        "import effdet_deploy\n"
        "with effdet_deploy.load('model.onnx') as detector:\n"
        "    print(detector.detect('white.png')[0])\n"
    )
    done = run_without(EXTRAS, code, cwd=workplace)
    assert done.stdout == "square x2, ring, circle\n", done.stderr


def test_a_torchscript_model_without_torch_names_the_extra(workplace):
    torch = pytest.importorskip("torch")
    path = workplace / "model.torchscript"
    torch.jit.save(torch.jit.script(torch.nn.Identity()), str(path))
    done = run_without(EXTRAS, TOOL, "detect", path.name, "white.png", cwd=workplace)
    assert done.returncode == 4
    assert "effdet-deploy[export]" in done.stderr
    assert "Traceback" not in done.stderr


def test_batch_without_its_packages_names_the_extra(workplace):
    done = run_without(EXTRAS, TOOL, "batch", "model.onnx", ".", "rows", cwd=workplace)
    assert done.returncode == 4
    assert "effdet-deploy[batch]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (workplace / "rows").exists()


def test_characters_that_the_encoding_lacks_stop_no_command(workplace, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = run_without(EXTRAS, TOOL, "doctor", cwd=workplace)
    assert done.returncode == 0, done.stderr
