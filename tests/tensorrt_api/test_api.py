"""Every name, method and argument of TensorRT that we use exists in the newest 10.x and 11.x.

The bindings are NVIDIA's own; see ``bindings.py`` for how they load without TensorRT.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from effdet_deploy.exporters.build_options import HARDWARE_LEVELS, BuildOptions
from effdet_deploy.exporters.tensorrt import definition as network
from effdet_deploy.exporters.tensorrt import timing_cache, worker
from effdet_deploy.runtimes.tensorrt import engine_runtime, execution_context, library
from tests.doubles.machine import DOUBLE

MODULES = (network, timing_cache, worker, engine_runtime, execution_context, library)
"""All modules that call TensorRT."""
FILES = [Path(each.__file__) for each in MODULES]
_MYPY = """[mypy]
follow_imports = skip
ignore_missing_imports = true
check_untyped_defs = true

[mypy-tensorrt]
follow_imports = normal
ignore_errors = true
"""
# An attribute, a method and an argument that no release has.
PLANTED = {
    "builder.create_network(typed)": "builder.create_netwrk(typed)",
    "config.builder_optimization_level =": "config.builder_optimisation_level =",
    "config.set_memory_pool_limit(": "config.set_memory_pool_limit(1, ",
}


def names_used(source: str) -> set[str]:
    """Return every dotted name below ``trt`` in ``source``."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        parts = []
        inner: ast.AST = node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if parts and isinstance(inner, ast.Name) and inner.id == "trt":
            found.add(".".join(reversed(parts)))
    return found


def all_names_used() -> set[str]:
    flags = {f"BuilderFlag.{each}" for each in network.builder_flags(BuildOptions())}
    levels = {f"HardwareCompatibilityLevel.{each}" for each in HARDWARE_LEVELS.values()}
    return flags | levels | {name for path in FILES for name in names_used(path.read_text())}


def test_the_search_finds_the_names():
    assert {"Builder", "ILogger.Severity.ERROR", "TensorIOMode.INPUT"} <= all_names_used()


def test_every_name_exists(bindings):
    assert bindings.missing(sorted(all_names_used())) == []


def test_a_planted_name_is_found(bindings):
    planted = ["BuilderFlag.TF32", "BuilderFlag.FP12", "ILogger.Severity.FATAL"]

    assert bindings.missing(planted) == ["BuilderFlag.FP12", "ILogger.Severity.FATAL"]


def test_names_that_11_removed_exist_in_10(bindings):
    """The two folders hold the releases that their names say."""
    missing = bindings.missing(["BuilderFlag.FP16", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH"])

    assert bool(missing) == (bindings.major == "11")


def test_calls_and_attributes_fit_the_types_and_planted_ones_do_not(bindings, tmp_path):
    """One run of mypy checks right and wrong code against type stubs made from the bindings."""
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.pyi").write_text(bindings.run("make_stubs.py"))
    (tmp_path / "mypy.ini").write_text(_MYPY)
    planted = tmp_path / "planted.py"
    planted.write_text(_planted_source())

    errors = _run_mypy(tmp_path, [*FILES, planted])

    ours = [each for each in errors if "planted.py" not in each]
    theirs = [each for each in errors if "planted.py" in each]
    assert ours == []
    assert len(theirs) >= len(PLANTED)
    assert any('"create_netwrk"' in each for each in theirs)
    assert any('"builder_optimisation_level"' in each for each in theirs)
    assert any('"set_memory_pool_limit"' in each for each in theirs)


def _planted_source() -> str:
    source = FILES[0].read_text()
    for right, wrong in PLANTED.items():
        assert right in source
        source = source.replace(right, wrong)
    return source


def _run_mypy(folder: Path, files: list[Path]) -> list[str]:
    arguments = ["--config-file", str(folder / "mypy.ini"), "--cache-dir", str(folder / "cache")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *arguments, *map(str, files)],
        env=os.environ | {"MYPYPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if ": error:" in line]


@pytest.fixture
def double(monkeypatch, bindings):
    """The double of TensorRT with this major version."""
    monkeypatch.setenv("TENSORRT_DOUBLE_VERSION", f"{bindings.major}.0.0")
    monkeypatch.syspath_prepend(str(DOUBLE))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    module = importlib.import_module("tensorrt")
    yield module
    sys.modules.pop("tensorrt", None)


def test_the_double_has_no_name_that_tensorrt_lacks(double, bindings):
    surface = [name for name, _ in _surface(double)]

    assert {"Builder.build_serialized_network", "IExecutionContext.execute_async_v3"} < set(surface)
    assert bindings.missing(surface) == []


def test_the_double_names_arguments_as_tensorrt_does(double, bindings):
    genuine = json.loads(bindings.run("signatures.py"))

    for name, function in _surface(double):
        kind, _, method = name.partition(".")
        if not inspect.isfunction(function) or not method:
            continue
        ours = list(inspect.signature(function).parameters)[1:]
        overloads = genuine[kind][method]
        assert any(ours == each[: len(ours)] for each in overloads), (name, ours, overloads)


def _surface(double) -> list[tuple[str, object]]:
    """Return the double's public classes and their public members."""
    found: list[tuple[str, object]] = []
    for name, kind in inspect.getmembers(double, inspect.isclass):
        if name.startswith("_") or kind.__module__ not in ("tensorrt", "builtins"):
            continue
        found.append((name, kind))
        members = getattr(kind, "__members__", None)
        inside = members if members is not None else vars(kind)
        found += [
            (f"{name}.{each}", value) for each, value in inside.items() if not each.startswith("_")
        ]
    return found
