"""Puts the test doubles of TensorRT and CUDA in their places in this process."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from typing import TYPE_CHECKING

import effdet_deploy.runtimes.tensorrt.engine_runtime as runtime
from effdet_deploy.artifact.spec import BatchSpec, EngineSpec
from effdet_deploy.files import sha256_bytes, sidecar_path
from effdet_deploy.runtimes.gpu import Gpu
from tests.doubles.cuda import HostCuda
from tests.doubles.machine import DOUBLE, with_double
from tests.onnx_models import detector_spec

if TYPE_CHECKING:
    from pathlib import Path

GPU = Gpu("NVIDIA Double", "8.9")
VERSION = "10.16.1.11"


def install_double(
    monkeypatch,
    scenario: str = "",
    *,
    version: str = VERSION,
    gpus: tuple[Gpu, ...] = (GPU,),
    cuda: HostCuda | None = None,
    log: Path | None = None,
) -> HostCuda:
    """Have the doubles run engines from now on; return the double of CUDA."""
    for name, value in with_double(scenario, version=version, log=log).items():
        monkeypatch.setenv(name, value)
    cuda = cuda or HostCuda()
    monkeypatch.syspath_prepend(str(DOUBLE))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    module = importlib.import_module("tensorrt")
    module.queue = cuda.queue
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(runtime, "list_gpus", lambda: gpus)
    monkeypatch.setattr(runtime, "open_cuda", lambda _index: cuda)
    return cuda


def write_engine(path: Path, batch: BatchSpec | None = None, *, sidecar: bool = True, **engine):
    """Write a plan of the double, and the sidecar, the JSON file beside it that describes it.

    ``engine`` overrides fields of EngineSpec.
    """
    batch = batch or BatchSpec()
    plan = b"ftrt" + json.dumps([batch.minimum, batch.optimum, batch.maximum]).encode()
    path.write_bytes(plan)
    built = EngineSpec("tensorrt", VERSION, GPU.name, GPU.compute_capability)
    spec = dataclasses.replace(
        detector_spec(batch=batch), engine=dataclasses.replace(built, **engine)
    )
    if sidecar:
        document = {"spec": dataclasses.asdict(spec), "sha256": sha256_bytes(plan)}
        sidecar_path(path).write_text(json.dumps(document))
    return path
