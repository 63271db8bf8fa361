"""Build libeffdet for the tests, once per session, with the runtimes that this machine has."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "native"
BUILD = NATIVE / "build" / "pytest"
HEADERS = NATIVE / "build" / "headers"
"""The folder of headers that ``scripts/native.sh`` fetches because this Debian lacks them."""


def package_folder(name: str) -> Path | None:
    """Return the folder of an installed package without importing it."""
    found = importlib.util.find_spec(name)
    return Path(found.origin).parent if found and found.origin else None


def onnxruntime_library() -> Path:
    """Return the shared library inside the wheel of ONNX Runtime."""
    folder = package_folder("onnxruntime")
    found = sorted((folder / "capi").glob("libonnxruntime.so.*")) if folder else []
    if not found:
        pytest.skip("the installed onnxruntime brings no shared library of its own")
    return found[0]


def openvino_library() -> Path:
    """Return OpenVINO's C library inside its wheel."""
    folder = package_folder("openvino")
    found = sorted((folder / "libs").glob("libopenvino_c.so*")) if folder else []
    if not found:
        pytest.skip("the installed openvino brings no C library")
    return found[0]


def configure_options() -> list[str]:
    """Return CMake options that name the headers of installed packages."""
    options = []
    if (json := package_folder("nlohmann_json")) and not Path("/usr/include/nlohmann").is_dir():
        options.append(f"-DNLOHMANN_JSON_INCLUDE_DIR={json / 'include'}")
    if openvino := package_folder("openvino"):
        options.append(f"-DOpenVINO_DIR={openvino / 'cmake'}")
    if (HEADERS / "onnxruntime_c_api.h").is_file():
        options.append(f"-DONNXRUNTIME_INCLUDE_DIR={HEADERS}")
    return options


def require_tools() -> None:
    """Skip the test if libeffdet cannot be built here, and say how to install the tools."""
    missing = [each for each in ("cmake", "c++") if shutil.which(each) is None]
    has_json = package_folder("nlohmann_json") or Path("/usr/include/nlohmann").is_dir()
    if missing or not has_json:
        what = ", ".join([*missing, *([] if has_json else ["nlohmann/json.hpp"])])
        pytest.skip(f"libeffdet is not built without {what}: 'make native' installs them")


def build(folder: Path, *targets: str, options: tuple[str, ...] = ()) -> Path:
    """Build ``targets`` of libeffdet in ``folder``; the next session uses the folder again."""
    require_tools()
    with _alone(folder):
        configure = ["cmake", "-S", NATIVE, "-B", folder, *configure_options(), *options]
        run(*configure)
        run("cmake", "--build", folder, "--target", *targets)
    return folder


def run(*command: object, **options) -> str:
    """Run a command; if it fails, the test fails with the command's output."""
    done = subprocess.run(
        [str(each) for each in command], capture_output=True, text=True, check=False, **options
    )
    if done.returncode != 0:
        pytest.fail(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock the folder against other workers of the session."""
    fcntl = pytest.importorskip("fcntl")
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
