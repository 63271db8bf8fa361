"""`doctor`: what is installed, what is missing, and which INT8 files are right on this machine."""

from __future__ import annotations

import importlib.metadata
import json

from effdet_deploy.cli import main
from effdet_deploy.runtimes import installation, instructions


def test_it_lists_versions_devices_and_providers(capsys, tmp_path):
    target = tmp_path / "doctor.json"
    assert main(["doctor", "--json", str(target)]) == 0
    shown = capsys.readouterr().out
    assert "CPUExecutionProvider" in shown
    document = json.loads(target.read_text())
    running = document["purposes"][0]
    assert running["ready"]
    assert running["packages"]["onnxruntime"] is not None


def test_a_missing_package_is_shown_with_the_command_that_installs_it(monkeypatch, capsys):
    extras = [each for each in installation.PURPOSES if each]
    needed = ["numpy", "onnxruntime", *(f"{each}-engine; extra == '{each}'" for each in extras)]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _name: needed)
    present = {"numpy": "2.0", "onnxruntime": "1.31"}
    monkeypatch.setattr(installation, "installed_version", present.get)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for extra in extras:
        assert f"pip install 'effdet-deploy[{extra}]'" in shown
    assert "pip install effdet-deploy\n" not in shown


def test_notices_go_to_stderr_and_the_result_to_stdout(monkeypatch, capsys):
    present = {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}
    monkeypatch.setattr(installation, "installed_version", present.get)
    main(["doctor"])
    shown = capsys.readouterr()
    assert "both installed" in shown.err
    assert "both installed" not in shown.out


def test_it_says_which_int8_files_this_processor_computes_right(monkeypatch, capsys, tmp_path):
    sets = {"onnxruntime": "AVX-512 with VNNI", "openvino": "AVX2"}
    monkeypatch.setattr(instructions, "instruction_set", sets.get)
    assert main(["doctor", "--json", str(tmp_path / "doctor.json")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "onnxruntime: AVX-512 with VNNI, computes every INT8 file correctly" in shown
    assert "openvino: AVX2, computes only INT8 files with the portable range correctly" in shown
    said = json.loads((tmp_path / "doctor.json").read_text())["int8"]
    assert said["openvino"] == {"instructions": "AVX2", "full_range_is_right": False}
