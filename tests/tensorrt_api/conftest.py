from __future__ import annotations

import shutil

import pytest

from tests.tensorrt_api.bindings import FOLDER, Bindings, compile_stubs


@pytest.fixture(scope="session", params=["10", "11"])
def bindings(request, tmp_path_factory) -> Bindings:
    """NVIDIA's own bindings of one major version."""
    folder = FOLDER / request.param
    if not folder.is_dir():
        pytest.skip(
            f"no bindings of TensorRT {request.param}.x: scripts/fetch_trt_bindings.py fetches "
            "them; they would show that every name we use exists there"
        )
    if shutil.which("gcc") is None:
        pytest.skip("no gcc: importing NVIDIA's bindings needs stub libraries that gcc compiles")
    libraries = compile_stubs(tmp_path_factory.mktemp("stubs"), request.param)
    return Bindings(request.param, folder, libraries)
