"""The spec inside a model file and the sidecar beside it: read as written, refused if damaged."""

from __future__ import annotations

import io
import json
import warnings
import zipfile

import pytest

from effdet_deploy.artifact import modelfile
from effdet_deploy.artifact.codec import MAX_TEXT
from effdet_deploy.artifact.modelfile import read_sidecar, read_spec, warn_if_changed
from effdet_deploy.artifact.spec import METADATA_KEY
from effdet_deploy.errors import DataError, EffdetDeployWarning, ModelFileError
from effdet_deploy.files import resolve_inside, sha256_file, sidecar_path
from tests.onnx_models import detector_spec


@pytest.fixture
def artifact(tmp_path):
    return tmp_path / "model.engine"


def write(artifact, document) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    sidecar_path(artifact).write_text(text)


def test_a_sidecar_comes_back_as_it_was_written(artifact):
    spec = detector_spec()
    document = {"spec": json.loads(spec.to_json()), "sha256": "ab" * 32, "verification": {"a": [1]}}
    write(artifact, document | {"later": "addition"})
    sidecar = read_sidecar(artifact)
    assert (sidecar.spec, sidecar.sha256, sidecar.verification) == (spec, "ab" * 32, {"a": [1]})


@pytest.mark.parametrize(
    "document",
    [
        {"sha256": 3},
        {"sha256": "x" * 2_000_000},
        {"verification": [1]},
        {"verification": {"deep": json.loads("[" * 300 + "]" * 300)}},
        {"verification": {"value": float("nan")}},
        {"spec": {"version": 1}},
        '{"deep": ' + "[" * 200_000 + "]" * 200_000 + "}",
        '{"long": ' + "9" * 5001 + "}",
        "[]",
        "{",
    ],
    ids=[
        "hash of another type", "huge hash", "report of another type", "deep report",
        "not a number", "damaged spec", "too deep", "long integer", "list", "not JSON",
    ],
)  # fmt: skip
def test_a_sidecar_with_wrong_content_is_refused(artifact, document):
    write(artifact, document)
    with pytest.raises(DataError):
        read_sidecar(artifact)


def test_a_sidecar_of_more_bytes_than_any_export_writes_is_not_read(artifact, monkeypatch):
    monkeypatch.setattr(modelfile, "_MAX_SIDECAR", 100)
    write(artifact, {"verification": {"text": "x" * 100}})
    with pytest.raises(DataError, match="bytes"):
        read_sidecar(artifact)


def test_an_archive_that_declares_gigabytes_of_spec_is_not_unpacked(tmp_path):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr(f"model/extra/{METADATA_KEY}", b" " * (MAX_TEXT + 2))
    path = tmp_path / "model.torchscript"
    path.write_bytes(archive.getvalue())
    with pytest.raises(DataError, match="allowed"):
        read_spec(path, "torchscript")


@pytest.mark.parametrize("name", ["x" * 5000, "é" * 200, "a/" * 5000 + "x", "\ud800", "\0", ""])
def test_an_external_file_whose_name_no_system_takes_is_refused(tmp_path, name):
    if name:
        with pytest.raises(ModelFileError):
            resolve_inside(tmp_path, name)
    else:
        assert resolve_inside(tmp_path, name) == tmp_path


def test_a_file_that_was_changed_after_its_export_is_named(artifact):
    artifact.write_bytes(b"as exported")
    write(artifact, {"sha256": sha256_file(artifact)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_changed(artifact)
    artifact.write_bytes(b"as exporteD")
    with pytest.warns(EffdetDeployWarning, match=r"is not the file that 'model.engine.json'"):
        warn_if_changed(artifact)


def test_a_damaged_sidecar_is_warned_of_and_the_model_still_runs(artifact):
    artifact.write_bytes(b"as exported")
    write(artifact, "{")
    with pytest.warns(EffdetDeployWarning, match=r"sidecar.*cannot be read"):
        warn_if_changed(artifact)
