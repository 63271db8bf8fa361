"""The exported graph of D0: verified, lean, named by modules, and free of private data."""

from __future__ import annotations

import contextlib
import copy
import gc
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torchvision
from onnx import numpy_helper

from effdet_deploy.artifact.spec import METADATA_KEY, BatchSpec, DetectorSpec
from effdet_deploy.diagnosis.locating import locate
from effdet_deploy.errors import EffdetDeployError, UsageError
from effdet_deploy.exporters import EXPORTERS, Artifact, ExportOptions, export
from effdet_deploy.exporters.build_options import BuildOptions
from effdet_deploy.exporters.delivery import scratch_path
from effdet_deploy.exporters.material import read_material
from effdet_deploy.exporters.source import load_source, specification_of
from effdet_deploy.exporters.tensorrt.engine import build_engine
from effdet_deploy.files import sha256_file
from effdet_deploy.onnxgraph.layers import GraphLayers
from effdet_deploy.preflight import check_model, target_names
from effdet_deploy.progress import silent
from effdet_deploy.pytorch.eager_layers import EagerLayers
from effdet_deploy.pytorch.network import EfficientDet, get_config
from effdet_deploy.runtimes import load_runtime
from effdet_deploy.synthetic import structured_pictures
from tests.exporters.every_config import SOUND_DB, assert_layers_agree
from tests.networks import conditioned

RTX = BuildOptions(backend="tensorrt-rtx")
LEAN_NODES = 640
"""D0 has fewer nodes up to its raw heads (591); effdet's naive export has twice as many."""
NETWORK_OPERATORS = {
    *("Conv", "Gemm", "Sigmoid", "Mul", "Add", "MaxPool", "Resize", "ReduceMean"),
    # The following ones prepare the input (type, layout, mean) and reorder the heads. Shape, Gather
    # and Unsqueeze read the batch size if the batch has a range.
    *("Cast", "Sub", "Transpose", "Reshape", "Concat", "Shape", "Gather", "Unsqueeze"),
}
EXPECTED_COUNTS = {"Conv": 204, "Gemm": 2, "MaxPool": 14, "Resize": 12}
"""How many nodes of each operator D0's network has; the ten pointwise convolutions of its predict
layers are written as two matrix products (Gemm). Another count means an extra or a missing node."""


def ranged_network() -> EfficientDet:
    return conditioned("tf_efficientdet_d0")


@pytest.fixture(scope="module")
def graph(ranged: Artifact) -> onnx.ModelProto:
    return onnx.load(ranged.path)


def test_an_export_for_a_range_of_batches_passes_with_the_smallest_and_the_largest(
    ranged: Artifact,
) -> None:
    assert ranged.report is not None
    assert ranged.report.passed
    assert set(ranged.report.batch_sizes) == {1, 3}
    assert ranged.notes == (
        "1000 candidates give the same detections as 5000 on 4 generated pictures.",
    )


@pytest.mark.parametrize("nms", ["static", "onnx"])
def test_one_nms_for_all_classes_is_in_the_graph(nms: str, tmp_path: Path) -> None:
    network = conditioned("tf_efficientdet_lite0", num_classes=3)
    steps = {"nms_steps": 64} if nms == "static" else {}
    options = ExportOptions(nms=nms, class_agnostic=True, **steps)
    artifact = export(network, tmp_path / "lite0.onnx", options)
    assert artifact.report is not None
    assert artifact.report.passed
    assert artifact.spec.output.class_agnostic
    pictures = structured_pictures(2, 128, 128, seed=4)
    found = 0
    with contextlib.closing(load_runtime(artifact.path, "onnxruntime", "cpu")) as runtime:
        for picture in pictures:
            outputs = runtime.run({"images": picture[None]})
            count = int(outputs["num_detections"][0, 0])
            boxes = torch.from_numpy(outputs["detection_boxes"][0, :count])
            # An NMS that ignores the classes finds nothing more to suppress.
            assert len(torchvision.ops.nms(boxes, torch.linspace(1, 0, count), 0.501)) == count
            found += len(set(outputs["detection_classes"][0, :count].tolist()))
    assert found > 2


def test_no_layer_of_the_graph_differs_from_eager_pytorch(ranged: Artifact) -> None:
    assert_layers_agree(ranged.path, ranged_network())


def test_a_wrong_layer_into_which_a_fusion_weight_was_folded_is_located(
    ranged: Artifact, graph: onnx.ModelProto, tmp_path: Path
) -> None:
    layer = next(n for n in graph.graph.node if re.search(r"combine\.resample\.\d\.conv", n.name))
    assert layer.op_type == "Conv"
    planted = copy.deepcopy(graph)
    for tensor in planted.graph.initializer:
        if tensor.name in layer.input[1:]:
            values = numpy_helper.to_array(tensor) * np.float32(1.25)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path = tmp_path / "planted.onnx"
    onnx.save(planted, path)
    layers = GraphLayers(path)
    eager = EagerLayers(ranged_network(), layers.spec.input, layers.layers)
    pictures = list(structured_pictures(1, 128, 128, seed=11))
    report = locate(layers.layers, layers, eager, pictures, SOUND_DB)
    assert report.first is not None
    assert report.first.name == layer.name
    assert report.symptom == "is the reference's times 1.25"


def test_the_graph_is_lean(graph: onnx.ModelProto, ranged: Artifact) -> None:
    network = [node for node in graph.graph.node if not node.name.startswith("postprocess.")]
    assert len(network) < LEAN_NODES
    for operator, count in EXPECTED_COUNTS.items():
        assert ranged.spec.operators[operator] == count
    assert {node.op_type for node in network} <= NETWORK_OPERATORS


def test_every_node_has_a_name_of_its_own_that_its_first_output_shares(
    graph: onnx.ModelProto,
) -> None:
    names = [node.name for node in graph.graph.node]
    outputs = {value.name for value in graph.graph.output}
    assert len(set(names)) == len(names)
    assert all(node.output[0] in {node.name, *outputs} for node in graph.graph.node)


def test_every_convolution_is_named_by_a_module_of_the_network(graph: onnx.ModelProto) -> None:
    """Reports and precision files name layers by these modules."""
    modules = dict(conditioned("tf_efficientdet_d0").named_modules())
    convolutions = [node.name for node in graph.graph.node if node.op_type == "Conv"]
    for name in convolutions:
        path = re.sub(r"\.conv(_\d+)?$", "", name)
        # Folding gives each level of a head a pointwise convolution of its own.
        path = re.sub(r"\.level\.\d+$", ".conv_pw", path)
        assert path in modules, name


def test_nothing_private_is_in_the_file(ranged: Artifact) -> None:
    content = ranged.path.read_bytes()
    for secret in (str(Path.home()), str(Path(__file__).parents[2]), str(ranged.path.parent)):
        assert secret.encode() not in content
    assert b"stack_trace" not in content
    assert b"site-packages" not in content


def test_the_spec_travels_in_the_metadata_and_in_the_sidecar(
    graph: onnx.ModelProto, ranged: Artifact
) -> None:
    metadata = {each.key: each.value for each in graph.metadata_props}
    spec = DetectorSpec.from_json(metadata[METADATA_KEY])
    sidecar = json.loads(ranged.sidecar.read_text())
    assert spec == ranged.spec == DetectorSpec.from_dict(sidecar["spec"])
    assert sidecar["sha256"] == sha256_file(ranged.path)
    assert sidecar["verification"]["status"] == "passed"
    assert spec.operators["TopK"] == 3
    assert spec.batch.maximum == 3


def test_the_parameters_are_those_of_the_published_network(ranged: Artifact) -> None:
    # EfficientDet's table 2 says 3.9 M for D0.
    network = sum(each.numel() for each in conditioned("tf_efficientdet_d0").parameters())
    assert abs(network / 1e6 - 3.9) < 0.05
    assert ranged.spec.parameters == network


def test_a_model_in_memory_is_taken_as_it_is(tmp_path: Path) -> None:
    network = conditioned("tf_efficientdet_lite0", num_classes=3)
    options = ExportOptions(labels=write_labels(tmp_path))
    source = load_source(network, options, silent)
    spec = specification_of(source, options, read_material(options).labels)
    taken = source.model.state_dict()
    assert all(torch.equal(taken[name], value) for name, value in network.state_dict().items())
    assert [each.name for each in spec.classes] == ["cat", "dog", "bird"]
    assert spec.variant == "tf_efficientdet_lite0"
    assert spec.overrides == {"image_size": [128, 128], "num_classes": 3}


def test_weights_are_not_loaded_into_a_model_in_memory() -> None:
    network = conditioned("tf_efficientdet_lite0", num_classes=3)
    with pytest.raises(UsageError, match="cannot change a model in memory"):
        load_source(network, ExportOptions(weights="other.pth"), silent)


def test_garbage_is_collected_rarely_during_an_export_and_normally_after_it(
    tmp_path: Path,
) -> None:
    """During an export the collector would visit millions of lasting objects again and again."""
    before = gc.get_threshold()
    seen: list[int] = []

    def progress(_stage: str) -> None:
        seen.append(gc.get_threshold()[0])

    options = ExportOptions(weights=str(tmp_path / "absent.pth"))
    with pytest.raises(EffdetDeployError, match="absent"):
        export("d0", tmp_path / "m.onnx", options, progress)
    assert min(seen) > before[0]
    assert gc.get_threshold() == before


def test_no_output_has_the_name_of_an_intermediate_file() -> None:
    """No suffix of an intermediate file may be one that an output can have."""
    assert scratch_path(Path("private", "heads.onnx"), "heads").suffix not in EXPORTERS


def write_labels(directory: Path) -> Path:
    labels = directory / "labels.txt"
    labels.write_text("cat\ndog\nbird\n")
    return labels


def test_onnx_nms_gives_the_rows_of_static_nms(ranged: Artifact, tmp_path: Path) -> None:
    options = ExportOptions(weights="random", image_size=(128, 128), nms="onnx", verify=False)
    other = export("d0", tmp_path / "onnx_nms.onnx", options)
    image = structured_pictures(1, 128, 128, seed=3)
    with (
        contextlib.closing(load_runtime(ranged.path)) as static,
        contextlib.closing(load_runtime(other.path)) as operator,
    ):
        expected = static.run({"images": image})
        found = operator.run({"images": image})
    assert expected["num_detections"].item() > 20
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-4, err_msg=name)


def test_rtx_builds_the_graph_with_a_ranged_and_with_a_fixed_batch(
    ranged: Artifact, tmp_path: Path
) -> None:
    for batch in (None, BatchSpec(1, 1, 1)):
        artifact = build_engine(ranged.path, tmp_path / "d0.engine", RTX, batch=batch)
        assert artifact.spec.batch == (batch or ranged.spec.batch)
        assert json.loads(artifact.sidecar.read_text())["verified"] == "onnx"


@pytest.mark.parametrize("target", target_names())
def test_preflight_finds_nothing_in_the_graph(ranged: Artifact, target: str) -> None:
    assert check_model(ranged.path, target) == ()


def test_the_variant_in_the_spec_is_the_one_that_was_exported(ranged: Artifact) -> None:
    config = get_config(ranged.spec.variant)
    assert ranged.spec.anchors.scale == config.anchor_scale
    assert ranged.spec.input.mean == config.mean
