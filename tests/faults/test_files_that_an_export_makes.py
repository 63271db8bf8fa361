"""Faults that show only when an export really writes a file."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from effdet_deploy.artifact.spec import METADATA_KEY, DetectorSpec
from effdet_deploy.errors import ModelFileError
from effdet_deploy.exporters import Artifact, ExportOptions, export
from effdet_deploy.exporters import onnx as onnx_exporter
from effdet_deploy.files import sha256_file
from effdet_deploy.onnxgraph import finishing
from effdet_deploy.onnxgraph.simplify import simplify
from effdet_deploy.runtimes import load_runtime

if TYPE_CHECKING:
    from pathlib import Path

AWKWARD = "sp ace; $(rm) ünï"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    directory: Path = tmp_path_factory.mktemp(AWKWARD)
    options = ExportOptions(weights="random", image_size=(128, 128), verify=False)
    return export("lite0", directory / "größe;1.onnx", options)


def test_paths_with_spaces_semicolons_and_unicode_work(artifact: Artifact) -> None:
    assert artifact.path.is_file()
    assert artifact.sidecar.is_file()
    with contextlib.closing(load_runtime(artifact.path)) as runtime:
        found = runtime.run({"images": np.zeros((1, 128, 128, 3), dtype=np.uint8)})
    assert found["detection_boxes"].shape == (1, 100, 4)
    assert AWKWARD.encode() not in artifact.path.read_bytes()


def test_the_same_export_in_another_process_gives_the_same_bytes(
    artifact: Artifact, tmp_path: Path
) -> None:
    program = (
        "import sys; from effdet_deploy.exporters import ExportOptions, export\n"
        "export('lite0', sys.argv[1], "
        "ExportOptions(weights='random', image_size=(128, 128), verify=False))"
    )
    other = tmp_path / "again.onnx"
    subprocess.run([sys.executable, "-c", program, str(other)], check=True, capture_output=True)
    assert other.read_bytes() == artifact.path.read_bytes()


def custom_operator(path: Path, spec: DetectorSpec) -> None:
    """Write a graph that onnx.checker accepts and no runtime loads."""
    images = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, [1, 128, 128, 3])
    outputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["rows"])
        for name in spec.output.names
    ]
    node = onnx.helper.make_node(
        "Detect", ["images"], list(spec.output.names), "detect", domain="com.example"
    )
    heads = [
        onnx.helper.make_node("Detect", ["images"], [f"{name}_raw"], f"{name}.reshape", domain="x")
        for name in ("class_logits", "box_regression")
    ]
    graph = onnx.helper.make_graph([node, *heads], "g", [images], outputs)
    opsets = [onnx.helper.make_opsetid(domain, 1) for domain in ("com.example", "x")]
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20), *opsets], ir_version=10
    )
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.checker.check_model(model)
    onnx.save(model, path)


def test_a_graph_that_no_runtime_loads_is_not_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(
        network: object, spec: DetectorSpec, opset: int, path: Path, progress: object
    ) -> tuple[DetectorSpec, tuple[str, ...]]:
        custom_operator(path, spec)
        return spec, ()

    monkeypatch.setattr(onnx_exporter, "write_graph", write)
    target = tmp_path / "m.onnx"
    target.write_bytes(b"what stood here before")
    with pytest.raises(ModelFileError, match="Detect"):
        export("lite0", target, ExportOptions(weights="random", image_size=(128, 128)))
    assert target.read_bytes() == b"what stood here before"
    assert list(tmp_path.iterdir()) == [target], "other files were left behind"


SHIFT_A_BIAS = """
import sys, onnx, numpy
model = onnx.load(sys.argv[1])
for tensor in model.graph.initializer:
    if tensor.name.endswith("bias"):
        values = onnx.numpy_helper.to_array(tensor) + 0.01
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype("float32"), tensor.name))
onnx.save(model, sys.argv[2])
"""
RENAME_A_NODE = """
import sys, onnx
model = onnx.load(sys.argv[1])
for node in model.graph.node:
    node.name = ""
onnx.save(model, sys.argv[2])
"""
UNKNOWN_OPERATOR = """
import sys, onnx
model = onnx.load(sys.argv[1])
model.graph.node[0].op_type = "Conundrum"
onnx.save(model, sys.argv[2])
"""


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os; os.abort()", "ended by signal 6"),
        ("raise ValueError('no such shape')", "failed: ValueError: no such shape"),
        ("pass", "wrote nothing"),
        ("import time; time.sleep(60)", "did not finish in 1 s"),
        (SHIFT_A_BIAS, "changed the numbers of"),
        (RENAME_A_NODE, "does not run"),
        ("import sys; open(sys.argv[2], 'wb').write(b'no')", "does not run"),
        (UNKNOWN_OPERATOR, "does not run"),
    ],
    ids=[
        *("crash", "exception", "no file", "hang", "changed numbers", "no names", "garbage"),
        "unknown operator",
    ],
)
def test_a_failing_simplifier_leaves_the_traced_graph_and_a_reason(
    artifact: Artifact, tmp_path: Path, program: str, reason: str
) -> None:
    target = tmp_path / "simplified.onnx"
    source = tmp_path / "traced.onnx"
    source.write_bytes(artifact.path.read_bytes())
    example = np.full((1, 128, 128, 3), 90, dtype=np.uint8)
    example[:, 40:80, 40:80] = 200
    timeout = 1 if "sleep" in program else 60
    note = simplify(source, target, example, program=program, timeout=timeout)
    assert reason in note
    assert target.read_bytes() == source.read_bytes()


def test_a_large_model_keeps_its_weights_in_a_file_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "EXTERNAL_DATA_ABOVE", 1_000_000)
    options = ExportOptions(weights="random", image_size=(128, 128))
    artifact = export("lite0", tmp_path / "large.onnx", options)
    (data,) = artifact.spec.external_files
    assert artifact.report is not None
    assert artifact.report.passed
    assert sha256_file(tmp_path / data.name) == data.sha256
    assert artifact.size == artifact.path.stat().st_size + data.size
    assert artifact.path.stat().st_size < 1_000_000
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(
        [artifact.path.name, artifact.sidecar.name, data.name]
    )
