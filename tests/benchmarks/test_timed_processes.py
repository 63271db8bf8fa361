"""Scripts that time processes let Python keep its bytecode, and refuse wrong calls."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from effdet_deploy.benchmark.child import json_of_child

FAKE_PACKAGE = """
import sys
import onnx
from onnx import helper

def export_main():
    name = "not kept" if sys.dont_write_bytecode else "kept"
    graph = helper.make_graph([], name, [], [])
    onnx.save(helper.make_model(graph), sys.argv[-1])
    return 0
"""
START = {"import_s": 1.0, "load_s": 1.0, "first_s": 1.0, "until_first_s": 3.0, "peak_memory": 1}


@pytest.fixture(autouse=True)
def forbidden(monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")


@pytest.fixture
def started(monkeypatch):
    """Return a list that fills with what each child process is told, in place of running it."""
    import scaling
    import startup

    told = []

    def record(*_arguments, environment, **_named):
        told.append(environment)
        return START | {"imports_torch": False}

    for module in (scaling, startup):
        monkeypatch.setattr(module, "json_of_child", record)
    return told


def test_python_takes_the_environment_as_permission():
    from store import KEEPS_BYTECODE

    program = ("-c", "import sys; print(str(sys.dont_write_bytecode).lower())")
    assert json_of_child(*program, what="asking Python") is True
    assert json_of_child(*program, what="asking Python", environment=KEEPS_BYTECODE) is False


def test_the_starts_of_all_programs_keep_it(started, monkeypatch, tmp_path):
    import startup
    from store import KEEPS_BYTECODE

    (tmp_path / "model").write_bytes(b"x")
    made = dict.fromkeys(("ours", "theirs", "other"), ("effdet", tmp_path / "model"))
    monkeypatch.setattr(startup, "starts", lambda _case: made)
    config = SimpleNamespace(image_size=(64, 64))
    weights = SimpleNamespace(pictures=np.zeros((1, 8, 8, 3)), ours=SimpleNamespace(config=config))
    case = SimpleNamespace(
        variant="d0", threads=1, directory=tmp_path, stem="case", weights=weights
    )
    startup.measure_starts(case, pairs=7, others=1)
    assert started
    assert all(each == KEEPS_BYTECODE for each in started)


def test_an_export_of_scaling_keeps_it(started, tmp_path):
    import scaling
    from store import KEEPS_BYTECODE

    scaling.exported(scaling.Point("export", "d0", None, 1, 1), tmp_path / "model.onnx")
    assert started == [KEEPS_BYTECODE]


def test_a_folder_that_is_not_a_checkout_is_refused_before_anything_is_exported(tmp_path, capsys):
    """Otherwise the installed package would be compared with itself."""
    import exporting

    with pytest.raises(SystemExit) as ended:
        exporting.main([str(tmp_path / "nowhere"), "--variants", "d0"])
    assert ended.value.code == 2
    assert "nowhere' is not a checkout of effdet-deploy" in capsys.readouterr().err


def test_a_variant_that_does_not_exist_is_refused_in_one_sentence(capsys):
    import startup

    assert startup.main(["--variant", "d99"]) == 2
    assert "error: There is no variant named 'd99'." in capsys.readouterr().err


def test_an_axis_that_does_not_exist_is_refused(capsys):
    import scaling

    with pytest.raises(SystemExit):
        scaling.parse_arguments(["--axes", "batch,sise"])
    assert "there is no sise" in capsys.readouterr().err


def test_an_export_of_another_checkout_keeps_it(tmp_path):
    import hashlib

    import exporting
    import onnx
    from onnx import helper

    package = tmp_path / "effdet_deploy"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(FAKE_PACKAGE)
    kept = onnx.GraphProto(name="kept")
    assert kept == helper.make_graph([], "kept", [], [])
    digest = hashlib.sha256(kept.SerializeToString(deterministic=True)).hexdigest()
    assert exporting.export_with(tmp_path, ()).graph_sha256 == digest
