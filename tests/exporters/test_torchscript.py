"""The exported TorchScript archive: verified, with its spec inside, and run with torch alone."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import effdet_deploy
from effdet_deploy.artifact.spec import METADATA_KEY, BatchSpec, DetectorSpec
from effdet_deploy.exporters import Artifact, ExportOptions, export
from effdet_deploy.synthetic import structured_pictures


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path: Path = tmp_path_factory.mktemp("scripted") / "lite0.torchscript"
    options = ExportOptions(weights="random", image_size=(128, 128), batch=BatchSpec(1, 1, 2))
    return export("lite0", path, options)


def test_the_archive_passes_verification_at_both_batches(artifact: Artifact) -> None:
    assert artifact.report is not None
    assert artifact.report.passed
    assert set(artifact.report.batch_sizes) == {1, 2}


def test_the_spec_is_inside_the_archive(artifact: Artifact) -> None:
    extra = {METADATA_KEY: ""}
    torch.jit.load(artifact.path, _extra_files=extra)
    assert DetectorSpec.from_json(extra[METADATA_KEY]) == artifact.spec


def test_the_archive_runs_with_torch_alone(artifact: Artifact) -> None:
    module = torch.jit.load(artifact.path)
    picture = torch.from_numpy(structured_pictures(1, 128, 128, seed=4))
    with torch.inference_mode():
        count, boxes, scores, classes = module(picture)
    rows = int(count)
    assert rows > 0
    assert boxes.shape == (1, 100, 4)
    assert np.all(np.diff(scores[0, :rows].numpy()) <= 0), "best first"
    assert classes.dtype == torch.int32


def test_nothing_of_the_machine_that_made_it_is_in_the_archive(artifact: Artifact) -> None:
    with zipfile.ZipFile(artifact.path) as archive:
        content = b"".join(archive.read(each) for each in archive.namelist())
    for place in (Path(torch.__file__).parent, Path(effdet_deploy.__file__).parent):
        assert str(place).encode() not in content
    assert b"site-packages" not in content
