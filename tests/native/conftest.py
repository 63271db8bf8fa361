"""Fixtures of the native tests: the library that is built for them."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from tests.native.building import BUILD, NATIVE, build


@pytest.fixture(scope="session")
def testing_library():
    """The path of the libeffdet that has a fake runtime and exports internal functions."""
    return build(BUILD, "effdet_testing_shared") / "tests" / "libeffdet_testing.so"


@pytest.fixture(scope="session")
def has_onnxruntime(testing_library):
    """Skip the test if the library was built without ONNX Runtime's header."""
    cache = (BUILD / "CMakeCache.txt").read_text(encoding="utf-8")
    if "ONNXRUNTIME_C_API:PATH=ONNXRUNTIME_C_API-NOTFOUND" in cache:
        pytest.skip("onnxruntime_c_api.h is not here: 'make native' fetches it")


@pytest.fixture(scope="session")
def binding():
    """The ctypes binding that is shipped as an example."""
    path = NATIVE / "examples" / "python" / "effdet_native.py"
    spec = importlib.util.spec_from_file_location("effdet_native", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["effdet_native"] = module
    spec.loader.exec_module(module)
    return module
