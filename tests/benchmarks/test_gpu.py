"""What ``make gpu`` does with its steps, its kit (the files it needs) and its record of results.

One small step really runs.
"""

from __future__ import annotations

import json
import lzma
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from effdet_deploy.benchmark import Timing
from effdet_deploy.errors import MissingError, UsageError

DOCS = Path(__file__).parents[2] / "docs"
HOUR = 3600


@pytest.fixture
def record(tmp_path):
    from store import Record

    return Record.open(tmp_path / "gpu.json", {"dry": False}, {"steps": {}, "results": {}})


def row(name, median, ratio=None):
    return {
        "name": name,
        "median_ms": median,
        "median_interval_ms": [median - 0.1, median + 0.1],
        "runs": 15,
        "ours_is_faster_by": ratio,
    }


@pytest.fixture
def shown():
    """A record as a run leaves it: steps that were done, one that was not run, one left out."""
    table = "d0, batch 8: effdet eager"
    faster = {"median": 2.5, "interval": [2.4, 2.6], "pairs": 15, "verdict": "faster"}
    return {
        "dry": False,
        "machine": "Imaginary 9000",
        "versions": {"torch": "2.11.0"},
        "card": {
            "name": "NVIDIA Imaginary",
            "capability": "9.0",
            "memory": 80 * 2**30,
            "cuda": "13.0",
            "cudnn": 92000,
        },
        "steps": {
            "tests": {"state": "done"},
            "digits": {"state": "done"},
            table: {"state": "done"},
            "d2, batch 1: effdet torch.compile": {"state": "not run", "why": "9 s were left"},
        },
        "results": {
            "tests": {"counts": {"passed": 12, "skipped": 3, "failure": 0, "error": 0}},
            "digits": {
                "pictures": 8,
                "found": {
                    "TorchScript FP16": {
                        "status": "passed",
                        "matched": 61,
                        "of": 62,
                        "iou": 0.95,
                    },
                    "ONNX Runtime FP32": {"status": "not run", "why": "No such provider."},
                },
            },
            table: {
                "variant": "d0",
                "image_size": [512, 512],
                "batch": 8,
                "rows": [row("effdet eager FP32", 20.0, faster), row("ours, TorchScript FP32", 8)],
                "left_out": {"ours, CUDA graph FP32": "RuntimeError: no\nsecond line"},
            },
        },
    }


def test_a_dry_run_times_every_program_and_its_record_is_never_shown(tmp_path, record):
    import gpu
    from gpu_section import gpu_section

    chosen = [
        each for each in gpu.steps(gpu.DRY, tmp_path) if each.name.startswith("lite0, batch 1")
    ][:1]
    record.document["dry"] = gpu.DRY.is_dry
    # On a slow machine, a step may take thirty times its seconds.
    assert gpu.run(chosen, record, HOUR, patience=30), record.document["steps"]

    saved = json.loads((tmp_path / "gpu.json").read_text())
    (table,) = saved["results"].values()
    assert {each["name"] for each in table["rows"]} == {
        *("ours, TorchScript FP32", "ours, TorchScript FP16"),
        *("effdet eager FP32", "effdet eager FP16"),
    }
    assert all(each["runs"] == 1 for each in table["rows"])
    assert "Only a GPU records graphs" in table["left_out"]["ours, CUDA graph FP16"]
    with pytest.raises(UsageError, match="dry run"):
        gpu_section(saved)


def test_steps_whose_runtime_is_missing_are_recorded_as_not_run(tmp_path, record):
    import gpu

    absent = [each for each in gpu.steps(gpu.DRY, tmp_path) if "ONNX Runtime" in each.name]
    assert gpu.run(absent, record, HOUR)
    for each in record.document["steps"].values():
        assert each["state"] == "not run"
        assert "is not in the kit" in each["why"]


def test_every_step_is_accounted_for(record):
    import gpu

    def broken():
        raise ValueError("wrong")

    def absent():
        raise gpu.NotHereError("no such runtime")

    def endless():
        while True:
            time.sleep(0.01)

    todo = [
        gpu.Step("good", 100, lambda: {"found": {}}),
        gpu.Step("broken", 100, broken),
        gpu.Step("refused", 100, lambda: {"failed": "2 tests failed"}),
        gpu.Step("absent", 100, absent),
        gpu.Step("endless", 0.1, endless),
        gpu.Step("long", 3 * HOUR, broken),
    ]
    assert not gpu.run(todo, record, HOUR)
    steps = record.document["steps"]
    assert {name: each["state"] for name, each in steps.items()} == {
        "good": "done",
        "broken": "failed",
        "refused": "failed",
        "absent": "not run",
        "endless": "not run",
        "long": "not run",
    }
    assert "ValueError: wrong" in steps["broken"]["why"]
    assert steps["refused"]["why"] == "2 tests failed"
    assert "did not end within" in steps["endless"]["why"]
    assert "it may take 10800" in steps["long"]["why"]


def test_a_run_that_was_cut_off_goes_on_and_repeats_nothing(record):
    import gpu

    seen = []

    def step(name):
        return gpu.Step(name, 100, lambda: {"found": seen.append(name)})

    def cut_off():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gpu.run([step("one"), gpu.Step("two", 100, cut_off), step("three")], record, HOUR)
    left = json.loads(record.path.read_text())["steps"]
    assert [each["state"] for each in left.values()] == ["done", "cut off", "not run"]

    assert gpu.run([step("one"), step("two"), step("three")], record, HOUR)
    assert seen == ["one", "two", "three"]


def test_a_program_is_compared_with_our_program_of_the_same_precision():
    import gpu

    timings = {
        "ours, TorchScript FP32": Timing((0.010,) * 9),
        "ours, TorchScript FP16": Timing((0.005,) * 9),
        "effdet eager FP32": Timing((0.030,) * 9),
        "effdet eager FP16": Timing((0.020,) * 9),
    }
    found = {
        each["name"]: each["ours_is_faster_by"] for each in gpu.rows(timings, "ours, TorchScript")
    }
    assert found["effdet eager FP32"]["median"] == pytest.approx(3)
    assert found["effdet eager FP16"]["median"] == pytest.approx(4)
    assert found["ours, TorchScript FP32"] is None


def test_tests_marked_for_a_gpu_are_found_and_every_outcome_is_recorded(monkeypatch):
    """pytest is not started here: a stand-in writes the report that it would write."""
    import gpu

    def pytest_run(command, **_):
        names = [Path(each).name for each in command if each.endswith(".py")]
        assert names == ["test_gpu_graphs.py", "test_gpu.py"]
        (report,) = (each for each in command if each.startswith("--junit-xml="))
        Path(report.partition("=")[2]).write_text(
            '<testsuites><testsuite><testcase classname="a" name="good" time="0.5"/>'
            '<testcase classname="a" name="left"><skipped message="no TensorRT"/></testcase>'
            '<testcase classname="a" name="bad" time="1"><failure message="1 != 2"/></testcase>'
            "</testsuite></testsuites>"
        )
        return gpu.subprocess.CompletedProcess(command, 1, "", "")

    monkeypatch.setattr(gpu.subprocess, "run", pytest_run)
    found = gpu.run_tests(dry=True)
    assert found["counts"] == {"passed": 1, "skipped": 1, "failure": 1, "error": 0}
    assert found["tests"]["a: left"]["why"] == "no TensorRT"
    assert found["failed"] == "1 tests failed"
    assert found["not_run"] == ["tests/native"]


def test_a_kit_installs_only_the_packages_that_the_machine_lacks(tmp_path, monkeypatch):
    import gpu_kit

    kit = tmp_path / "kit"
    kit.mkdir()
    with pytest.raises(MissingError, match="make gpu-kit"):
        gpu_kit.unpack(kit, tmp_path)
    carried = tmp_path / "d0.onnx"
    carried.write_text("a model")
    with (
        lzma.open(kit / gpu_kit.FILES, "wb") as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        archive.add(carried, carried.name)
    asked = []
    monkeypatch.setattr(gpu_kit, "_pip", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(gpu_kit, "_is_installed", lambda name: name != "timm")
    monkeypatch.setattr(gpu_kit.sys, "path", [])
    monkeypatch.setenv("PYTHONPATH", "/somewhere")

    files = gpu_kit.unpack(kit, tmp_path / "scratch")

    assert (files / "d0.onnx").read_text() == "a model"
    ((*how, last),) = asked
    assert "--no-index" in how
    assert last == "timm"
    assert gpu_kit.sys.path == [str(tmp_path / "scratch" / "site")]
    assert gpu_kit.os.environ["PYTHONPATH"].startswith("/somewhere")


def test_the_kit_is_enough_beside_pytorch():
    """Packages that come neither with the kit nor with PyTorch are blocked in this process."""
    others = (
        *("onnx", "onnx_ir", "onnxruntime", "onnxscript", "onnxsim", "openvino", "rich", "typer"),
        *("click", "huggingface_hub", "hypothesis", "scipy", "sklearn", "matplotlib", "tqdm"),
        *("requests", "supervision", "tensorrt", "cuda", "h5py", "av", "ray", "tests.onnx_models"),
    )
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({others}));"
        "import gpu, gpu_peers, gpu_graphs, effdet_deploy.parity.comparison;"
        "import effdet_deploy.pytorch.weights.loading, effdet_deploy.runtimes.torchscript;"
        "import tests.networks, tests.runtimes.conftest, tests.runtimes.test_gpu;"
        "import tests.benchmarks.test_gpu_graphs"
    )
    paths = os.pathsep.join(map(str, (DOCS.parent, DOCS.parent / "benchmarks")))
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": paths})


def test_the_section_names_the_card_and_what_was_not_run(shown):
    from gpu_section import gpu_section

    text = gpu_section(shown)
    assert text.startswith("## On a GPU: NVIDIA Imaginary\n")
    assert "12 passed, 0 failed and 3 need what that machine lacks" in text
    assert "| TorchScript FP16 | passed | 61 of 62 | 0.95 |" in text
    assert "### D0 at 512x512, batch 8" in text
    assert "| effdet eager FP32 | 20.00 | 2.50 | 19.90-20.10 | 2.50x (2.40-2.60), faster |" in text
    assert "ours, CUDA graph FP32 was left out: RuntimeError: no\n" in text
    assert "d2, batch 1: effdet torch.compile: not run, because 9 s were left." in text


def test_the_section_replaces_its_older_version(shown):
    from gpu_section import TITLE, gpu_section
    from sections import with_section as placed

    def with_section(page, record):
        return placed(page, TITLE, gpu_section(record))

    bare = "# Benchmarks\n\n## One\n\ntext\n"
    without = with_section(bare, None)
    assert without.startswith(bare)
    assert "No GPU has run" in without
    filled = with_section(without, shown)
    assert "No GPU has run" not in filled
    assert gpu_section(shown).strip() in filled
    assert with_section(filled, None) == without
    amid = without + "\n# Scaling\n"
    assert with_section(with_section(amid, shown), None) == amid


def test_the_document_shows_the_record_beside_it():
    from gpu_section import DOCUMENT, TITLE, gpu_section, read_record
    from sections import with_section

    text = (DOCS / DOCUMENT).read_text(encoding="utf-8")
    assert with_section(text, TITLE, gpu_section(read_record(DOCS))) == text
