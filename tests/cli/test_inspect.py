"""`inspect`: what it shows of our files and of others, and how it ends."""

from __future__ import annotations

import dataclasses
import json

import pytest

from effdet_deploy.artifact.spec import EngineSpec
from effdet_deploy.cli import main
from effdet_deploy.files import sha256_file, sidecar_path
from effdet_deploy.runtimes import instructions
from tests.onnx_models import detector_spec, tiny_model, with_input, write_tiny
from tests.runtimes.test_instructions import PLANTED, int8_file


def test_it_shows_spec_tensors_operators_size_and_hash(model, capsys):
    assert main(["inspect", str(model)]) == 0
    shown = capsys.readouterr().out
    for words in (
        "tiny",
        "images uint8 [1, 128, 128, 3]",
        "detection_boxes float32 [1, 4, 4]",
        "static",
        "3: square, circle, ring",
        "opset onnx 18",
        "Unsqueeze",
        sha256_file(model)[:16],
    ):
        assert words in shown


def test_it_shows_the_frames_that_deepstream_scales(tmp_path, capsys):
    spec = with_input(detector_spec(), kind="float255", frame_size=(720, 1280))
    assert main(["inspect", str(write_tiny(tmp_path / "tiny.onnx", spec))]) == 0
    assert "float255, rgb; letterbox, from DeepStream's frames of 720x1280" in " ".join(
        capsys.readouterr().out.split()
    )


def test_it_shows_the_frames_that_the_graph_resizes(tmp_path, capsys):
    spec = with_input(detector_spec(), source_size=(720, 1280))
    assert main(["inspect", str(write_tiny(tmp_path / "tiny.onnx", spec))]) == 0
    assert "letterbox, in the graph, from frames of 720x1280" in " ".join(
        capsys.readouterr().out.split()
    )


def test_its_json_holds_everything(model, tmp_path, capsys):
    target = tmp_path / "said.json"
    assert main(["inspect", str(model), "--json", str(target)]) == 0
    capsys.readouterr()
    document = json.loads(target.read_text())
    assert document["content"] == "onnx"
    assert document["sha256"] == sha256_file(model)
    assert document["spec"]["variant"] == "tiny"
    assert document["size"] == model.stat().st_size
    assert document["operators"]["Cast"] == 3


@pytest.mark.parametrize(("recorded", "said"), [("", "HASH DIFFERS"), (None, "hash agrees")])
def test_it_compares_the_file_with_its_sidecar(model, capsys, recorded, said):
    digest = sha256_file(model) if recorded is None else recorded
    sidecar_path(model).write_text(
        json.dumps({"sha256": digest, "verification": {"status": "passed"}})
    )
    assert main(["inspect", str(model)]) == 0
    shown = capsys.readouterr().out
    assert said in shown
    assert "verification: passed" in shown


def test_a_foreign_onnx_file_is_described_as_far_as_possible(tmp_path, capsys):
    path = tmp_path / "foreign.onnx"
    path.write_bytes(tiny_model(with_spec=False).SerializeToString())
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr()
    assert "Unsqueeze" in shown.out
    assert "no effdet-deploy spec" in shown.err


def test_an_engine_is_described_by_its_sidecar_without_tensorrt(tmp_path, capsys):
    path = tmp_path / "model.engine"
    path.write_bytes(b"ptrt" + b"\0" * 64)
    spec = dataclasses.replace(
        detector_spec(), engine=EngineSpec("tensorrt", "10.13.0", "L4", "8.9")
    )
    sidecar_path(path).write_text(json.dumps({"spec": json.loads(spec.to_json()), "sha256": "0"}))
    assert main(["inspect", str(path)]) == 0
    assert "tensorrt 10.13.0 for L4 8.9" in capsys.readouterr().out


def test_a_torchscript_archive_is_described(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.torchscript"
    extra = {"effdet.spec": detector_spec().to_json()}
    torch.jit.save(torch.jit.script(torch.nn.Identity()), str(path), _extra_files=extra)
    assert main(["inspect", str(path)]) == 0
    assert "3: square, circle, ring" in capsys.readouterr().out


def test_a_bad_file_is_exit_5(tmp_path, capsys):
    (tmp_path / "bad.onnx").write_bytes(b"nothing of the kind")
    assert main(["inspect", str(tmp_path / "bad.onnx")]) == 5
    assert "not a readable ONNX model" in capsys.readouterr().err


def test_an_unwritable_json_target_is_refused_first(tmp_path, capsys):
    target = tmp_path / "absent" / "said.json"
    assert main(["inspect", str(write_tiny(tmp_path / "m.onnx")), "--json", str(target)]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("written", "here", "said"),
    [
        ("full", "AVX2", "WRONG on this processor, which has AVX2"),
        ("full", "AMX", "right on this processor, which has AMX"),
        ("portable", "AVX2", "right on every processor"),
    ],
)
def test_it_says_whether_this_processor_computes_int8_right(
    tmp_path, capsys, monkeypatch, written, here, said
):
    monkeypatch.setattr(instructions, "instruction_set", lambda _runtime: here)
    path = int8_file(tmp_path / "int8.onnx", "openvino", written, written=written)
    target = tmp_path / "said.json"
    assert main(["inspect", str(path), "--json", str(target)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert said in shown
    assert f"int8 for openvino, {written} range" in shown
    document = json.loads(target.read_text())["int8"]
    assert document["right_here"] is ("WRONG" not in said)
    assert document["needs"] == ("vnni" if written == "full" else None)
    assert (PLANTED in document["saturating_layers"]) is (written == "full")
