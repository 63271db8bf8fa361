"""Engines to bundle, and a check that a refused bundle leaves nothing behind."""

from __future__ import annotations

import dataclasses
import json

import pytest

from effdet_deploy.artifact.spec import EngineSpec
from effdet_deploy.files import sha256_bytes, sidecar_path
from tests.onnx_models import detector_spec

BACKENDS = {"tensorrt": "10.16.1.11", "tensorrt-rtx": "1.5.0.85"}


@pytest.fixture
def write_engine(tmp_path):
    """Write what looks like an engine, with its sidecar (FILE.json), and return its path."""

    def write(spec=None, backend="tensorrt", traits=(), name="tiny.engine"):
        spec = spec or detector_spec()
        engine = EngineSpec(backend, BACKENDS[backend], "NVIDIA L4", "8.9", traits)
        spec = dataclasses.replace(spec, engine=engine)
        path, plan = tmp_path / name, b"ptrt" + bytes(60)
        path.write_bytes(plan)
        document = {"spec": json.loads(spec.to_json()), "sha256": sha256_bytes(plan)}
        sidecar_path(path).write_text(json.dumps(document), encoding="utf-8")
        return path

    return write


@pytest.fixture
def nothing_left(tmp_path):
    """Return a check that no folder was made, neither the bundle's nor one beside it."""
    before = set(tmp_path.rglob("*"))

    def check(*, apart_from=()):
        allowed = {*before, *apart_from}
        assert {each for each in tmp_path.rglob("*") if each.is_dir()} <= allowed

    return check
