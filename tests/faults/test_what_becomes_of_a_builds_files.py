"""The files of an engine build: old ones survive failures, and a result is always complete."""

from __future__ import annotations

import json
import resource
import subprocess
import threading

import pytest

from effdet_deploy.artifact.modelfile import read_sidecar
from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.errors import (
    EffdetDeployWarning,
    ResourceError,
)
from effdet_deploy.exporters.build_options import BuildOptions
from effdet_deploy.exporters.tensorrt.engine import build_engine
from effdet_deploy.exporters.tensorrt.timing_cache import Origin
from effdet_deploy.files import sha256_bytes, sha256_file
from tests.doubles.machine import recorded
from tests.faults.builds import RTX, assert_untouched, build_command
from tests.onnx_models import detector_spec, write_tiny


def test_a_full_disk_keeps_the_old_engine(model, engine):
    """With a limit on the size of files, a write fails as it fails on a full disk."""
    done = subprocess.run(
        build_command(model, engine, "--backend", "tensorrt-rtx"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == ResourceError.exit_code
    assert "disk was full" in done.stderr
    assert_untouched(engine, model)


def test_two_builds_to_one_target_leave_one_complete_result(tmp_path):
    target = tmp_path / "tiny.engine"
    models = [
        write_tiny(tmp_path / "one.onnx"),
        write_tiny(tmp_path / "many.onnx", detector_spec(batch=BatchSpec(1, 2, 4))),
    ]
    threads = [threading.Thread(target=build_engine, args=(each, target, RTX)) for each in models]

    for each in threads:
        each.start()
    for each in threads:
        each.join()

    sidecar = read_sidecar(target)
    assert sidecar.sha256 == sha256_file(target)
    assert {each.name for each in tmp_path.iterdir()} == {
        "one.onnx",
        "many.onnx",
        "tiny.engine",
        "tiny.engine.json",
    }


@pytest.mark.parametrize(
    ("content", "note", "reason"),
    [
        (b"rubbish", None, "TensorRT cannot read it"),
        (b"bit rot", {"sha256": "0" * 64}, "its content is damaged"),
        (b"old", {"version": "9.0.0"}, "it was measured with tensorrt 9.0.0"),
        (b"old", {"gpu": "NVIDIA T4"}, "on NVIDIA T4"),
        (b"odd", "not JSON", "its sidecar 'timings.bin.json' is damaged"),
    ],
)
def test_a_bad_timing_cache_is_discarded_and_made_anew(
    content, note, reason, model, tmp_path, use_double
):
    log = use_double("")
    cache = tmp_path / "timings.bin"
    cache.write_bytes(content)
    if note is not None:
        _write_sidecar(cache, note)

    with pytest.warns(EffdetDeployWarning, match=reason):
        build_engine(model, tmp_path / "tiny.engine", BuildOptions(timing_cache=cache))

    assert cache.read_bytes() == b"timings of the double"
    assert ["create_timing_cache", ""] in recorded(log)


def _write_sidecar(cache, note):
    text = note
    if isinstance(note, dict):
        origin = {"backend": "tensorrt", "version": "10.16.1.11", "gpu": ""}
        origin |= {key: value for key, value in note.items() if key in origin}
        digest = note.get("sha256", sha256_bytes(cache.read_bytes()))
        text = json.dumps({"origin": vars(Origin(**origin)), "sha256": digest})
    cache.with_name(cache.name + ".json").write_text(text)


def test_a_cache_that_tensorrt_refuses_is_discarded(model, tmp_path, use_double):
    use_double("timing cache of another GPU")
    cache = tmp_path / "timings.bin"
    cache.write_bytes(b"timings of the double")

    with pytest.warns(EffdetDeployWarning, match="TensorRT does not accept it"):
        build_engine(model, tmp_path / "tiny.engine", BuildOptions(timing_cache=cache))
