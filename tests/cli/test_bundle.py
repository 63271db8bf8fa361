"""`bundle` from the command line: what it prints, and how it ends."""

from __future__ import annotations

import json

from tests.onnx_models import write_tiny


def test_a_bundle_says_what_it_wrote_and_what_to_run_next(run_tool, model, tmp_path):
    done = run_tool("bundle", "triton", model, "models", "--name", "shapes", "--json", "b.json")
    assert done.returncode == 0, done.stderr
    *_, wrote, following, then = done.stdout.splitlines()
    folder = "models/shapes"
    assert wrote == f"[✓] wrote {folder}: 1/model.onnx, client.py, config.pbtxt, labels.txt"
    assert following == "    next: tritonserver --model-repository models"
    assert then == f"    then: python {folder}/client.py localhost:8000 shapes PICTURE.jpg"
    document = json.loads((tmp_path / "b.json").read_text())
    assert document["folder"] == folder
    assert all((tmp_path / folder / each).is_file() for each in document["files"])


def test_a_bundle_that_cannot_be_made_exits_as_every_command_does(run_tool, model, tmp_path):
    for arguments, code, said in (
        (("tritan", model, "models"), 2, "Did you mean triton"),
        (("triton", "none.onnx", "models"), 5, "does not exist"),
        (("triton", model, "models", "--labels", "none.txt"), 5, "cannot be read"),
        (("triton", model, model), 2, "not a directory"),
    ):
        done = run_tool("bundle", *arguments)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert not (tmp_path / "models").exists()


def test_a_result_does_not_replace_the_model(run_tool, tmp_path):
    model = write_tiny(tmp_path / "tiny.onnx")
    before = model.read_bytes()
    done = run_tool("bundle", "triton", model, "models", "--json", "tiny.onnx")
    assert done.returncode == 2
    assert model.read_bytes() == before
