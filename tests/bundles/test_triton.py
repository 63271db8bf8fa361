"""A Triton repository: its config.pbtxt is valid by Triton's own definition and fits the model."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from PIL import Image

import effdet_deploy
from effdet_deploy.artifact.spec import BatchSpec, ClassSpec, DetectorSpec, PrecisionSpec
from effdet_deploy.bundles import BundleOptions, bundle
from effdet_deploy.errors import DataError, ModelFileError, UnknownNameError, UsageError
from effdet_deploy.synthetic import structured_pictures
from tests.bundles.model_config import parse, pb
from tests.native.models import make_spec, write_model
from tests.onnx_models import NAMES, detector_spec, with_input, write_tiny

ROOT = Path(__file__).parents[2]
SERVER = Path(__file__).parent / "server"
RANGED = BatchSpec(1, 2, 8)
ONNX_TYPES = {
    onnx.TensorProto.UINT8: pb.TYPE_UINT8,
    onnx.TensorProto.FLOAT: pb.TYPE_FP32,
    onnx.TensorProto.INT32: pb.TYPE_INT32,
}


@pytest.fixture
def make(tmp_path):
    """Write a tiny model and bundle it; return the folder and its configuration."""

    def bundled(spec=None, name="digits", **options):
        model = write_tiny(tmp_path / f"{name}.onnx", spec or detector_spec(batch=RANGED))
        made = bundle("triton", model, tmp_path / "models", BundleOptions(**options))
        return made.folder, parse(made.folder / "config.pbtxt")

    return bundled


def test_a_bundle_is_the_model_its_configuration_its_labels_and_a_client(make, tmp_path):
    folder, config = make()
    files = {each.relative_to(tmp_path / "models").as_posix() for each in folder.rglob("*.*")}
    names = ("config.pbtxt", "labels.txt", "client.py", "1/model.onnx")
    assert files == {f"digits/{each}" for each in names}
    assert config.name == "digits"
    assert config.platform == "onnxruntime_onnx"
    assert (folder / "1" / "model.onnx").read_bytes() == (tmp_path / "digits.onnx").read_bytes()
    assert (folder / "labels.txt").read_text().splitlines() == list(NAMES)


@pytest.mark.parametrize("kind", ["uint8", "float255"])
@pytest.mark.parametrize("batch", [RANGED, BatchSpec(), BatchSpec(4, 4, 4)])
def test_the_configuration_has_the_tensors_of_the_graph(make, kind, batch):
    folder, config = make(with_input(detector_spec(batch=batch), kind=kind))
    graph = onnx.load(folder / "1" / "model.onnx").graph
    for ours, theirs in ((config.input, graph.input), (config.output, graph.output)):
        assert [each.name for each in ours] == [each.name for each in theirs]
        for mine, known in zip(ours, theirs, strict=True):
            kind = known.type.tensor_type
            sides = [each.dim_value for each in kind.shape.dim]
            assert mine.data_type == ONNX_TYPES[kind.elem_type]
            # In the graph, a ranged batch dimension has a name and no value; Triton leaves it out.
            assert list(mine.dims) == (sides if batch.is_static else sides[1:])


@pytest.mark.parametrize("batch", [RANGED, BatchSpec(), BatchSpec(4, 4, 4)])
def test_triton_makes_batches_where_the_model_takes_a_range(make, batch):
    _, config = make(detector_spec(batch=batch))
    assert config.max_batch_size == (0 if batch.is_static else 8)
    assert config.HasField("dynamic_batching") != batch.is_static


@pytest.mark.parametrize(("batch", "sizes"), [(RANGED, [1, 2, 8]), (BatchSpec(4, 4, 4), [1])])
def test_each_size_is_warmed_up_with_the_inputs_of_the_model(make, batch, sizes):
    _, config = make(detector_spec(batch=batch))
    assert [each.batch_size for each in config.model_warmup] == sizes
    (taken,) = config.input
    for each in config.model_warmup:
        assert list(each.inputs) == [taken.name]
        assert each.inputs["images"].data_type == taken.data_type
        assert each.inputs["images"].dims == taken.dims
        assert each.inputs["images"].zero_data


def test_a_client_reads_the_spec_with_any_class_name_from_the_server(make):
    spec = detector_spec(batch=RANGED)
    names = ('a "quoted" \\ name', "Köln, 東京", "tab\there")
    classes = tuple(ClassSpec(name, 7) for name in names)
    _, config = make(dataclasses.replace(spec, classes=classes))
    told = DetectorSpec.from_json(config.parameters["effdet.spec"].string_value)
    assert told == dataclasses.replace(spec, classes=classes)


def test_labels_of_the_user_take_the_place_of_the_models_and_its_category_ids_stay(make, tmp_path):
    (tmp_path / "names.txt").write_text("one\ntwo\nthree\n")
    folder, config = make(labels=tmp_path / "names.txt")
    assert (folder / "labels.txt").read_text() == "one\ntwo\nthree\n"
    told = json.loads(config.parameters["effdet.spec"].string_value)
    assert told["classes"][2] == {"name": "three", "category_id": 12}


@pytest.mark.parametrize(
    ("target", "platform", "backend", "kind"),
    [
        (None, "onnxruntime_onnx", "", pb.ModelInstanceGroup.KIND_AUTO),
        ("onnxruntime", "onnxruntime_onnx", "", pb.ModelInstanceGroup.KIND_CPU),
        ("openvino", "", "openvino", pb.ModelInstanceGroup.KIND_CPU),
    ],
)
def test_a_file_goes_to_the_runtime_that_it_is_laid_out_for(make, target, platform, backend, kind):
    spec = dataclasses.replace(detector_spec(), precision=PrecisionSpec("fp32", target))
    folder, config = make(spec)
    assert (config.platform, config.backend) == (platform, backend)
    assert config.instance_group[0].kind == kind
    assert (folder / "1" / (config.default_model_filename or "model.onnx")).is_file()


def test_an_engine_is_a_plan_on_a_gpu(write_engine, tmp_path):
    engine = write_engine(detector_spec(batch=RANGED))
    made = bundle("triton", engine, tmp_path / "models")
    config = parse(made.folder / "config.pbtxt")
    assert config.platform == "tensorrt_plan"
    assert config.instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU
    assert (made.folder / "1" / "model.plan").read_bytes() == engine.read_bytes()


def test_notes_name_a_fixed_batch_a_needed_instruction_and_a_needed_build(tmp_path):
    precision = PrecisionSpec("int8", "onnxruntime", int8_range="full", instruction="vnni")
    spec = dataclasses.replace(detector_spec(), precision=precision)
    made = bundle("triton", write_tiny(tmp_path / "a.onnx", spec), tmp_path / "models")
    assert any("the batch size is fixed at 1" in each for each in made.notes)
    assert any("VNNI" in each for each in made.notes)
    spec = dataclasses.replace(spec, precision=PrecisionSpec("fp16", "tensorrt"))
    made = bundle("triton", write_tiny(tmp_path / "b.onnx", spec), tmp_path / "models")
    assert any("build an engine" in each for each in made.notes)


def test_a_repository_keeps_its_other_models(make, tmp_path):
    make()
    other, config = make(name="ovals")
    assert config.name == "ovals"
    assert sorted(each.name for each in (tmp_path / "models").iterdir()) == ["digits", "ovals"]
    assert other.parent == tmp_path / "models"


def test_missing_parent_folders_are_made(tmp_path):
    made = bundle("triton", write_tiny(tmp_path / "tiny.onnx"), tmp_path / "a" / "b")
    assert made.folder == tmp_path / "a" / "b" / "tiny"
    assert (made.folder / "config.pbtxt").is_file()


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "cannot be read"), ("one\ntwo\n", "2 labels for a model of 3 classes")],
)
def test_missing_or_too_few_labels_are_refused(tmp_path, nothing_left, content, expected):
    if content is not None:
        (tmp_path / "names.txt").write_text(content)
    options = BundleOptions(labels=tmp_path / "names.txt")
    model = write_tiny(tmp_path / "tiny.onnx")
    with pytest.raises(DataError, match=expected):
        bundle("triton", model, tmp_path / "models", options)
    nothing_left()


@pytest.mark.parametrize("name", ["two\nlines", "a;b", " "])
def test_a_class_name_that_does_not_fit_on_a_line_is_refused(tmp_path, nothing_left, name):
    spec = dataclasses.replace(detector_spec(), classes=(ClassSpec(name, 1),) * 3)
    with pytest.raises(DataError, match="cannot be a line"):
        bundle("triton", write_tiny(tmp_path / "tiny.onnx", spec), tmp_path / "models")
    nothing_left()


def test_a_batch_range_that_begins_above_one_is_refused(tmp_path, nothing_left):
    model = write_tiny(tmp_path / "tiny.onnx", detector_spec(batch=BatchSpec(2, 4, 8)))
    with pytest.raises(ModelFileError, match=r"sends single pictures .*--batch 1\.\.8"):
        bundle("triton", model, tmp_path / "models")
    nothing_left()


@pytest.mark.parametrize("nms", ["none", "plugin"])
def test_an_onnx_file_with_raw_heads_or_the_nms_plugin_is_refused(tmp_path, nothing_left, nms):
    model = write_tiny(tmp_path / "tiny.onnx", detector_spec(nms=nms, max_detections=4))
    with pytest.raises(ModelFileError, match="raw heads" if nms == "none" else "NMS plugin"):
        bundle("triton", model, tmp_path / "models")
    nothing_left()


def test_engines_that_triton_could_not_load_are_refused(write_engine, tmp_path, nothing_left):
    for backend, traits, expected in (
        ("tensorrt-rtx", (), "TensorRT-RTX"),
        ("tensorrt", ("strip-plan",), "holds no weights"),
    ):
        with pytest.raises(ModelFileError, match=expected):
            bundle("triton", write_engine(None, backend, traits), tmp_path / "models")
    engine = write_engine()
    engine.write_bytes(b"ptrt" + bytes(61))
    with pytest.raises(ModelFileError, match="not the one that its sidecar describes"):
        bundle("triton", engine, tmp_path / "models")
    engine.with_name("tiny.engine.json").unlink()
    with pytest.raises(ModelFileError, match="carries no effdet-deploy spec"):
        bundle("triton", engine, tmp_path / "models")
    nothing_left()


def test_a_model_name_that_cannot_be_a_folder_is_refused(tmp_path, nothing_left):
    model = write_tiny(tmp_path / "my model.onnx")
    for options in (BundleOptions(), BundleOptions(name="../up")):
        with pytest.raises(UsageError, match="cannot be called"):
            bundle("triton", model, tmp_path / "models", options)
    nothing_left()
    with pytest.raises(UnknownNameError, match="triton"):
        bundle("tritan", model, tmp_path / "models")


def test_a_folder_that_is_not_empty_is_refused_and_left_as_it_is(make, tmp_path):
    folder, _ = make()
    (folder / "labels.txt").write_text("mine\n")
    with pytest.raises(UsageError, match="exists and is not empty"):
        make()
    assert (folder / "labels.txt").read_text() == "mine\n"
    assert [each.name for each in (tmp_path / "models").iterdir()] == ["digits"]


def test_a_failure_in_the_middle_leaves_nothing(tmp_path, nothing_left, monkeypatch):
    model = write_tiny(tmp_path / "tiny.onnx")

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("effdet_deploy.bundles.triton.configuration", fail)
    with pytest.raises(OSError, match="Input/output"):
        bundle("triton", model, tmp_path / "models")
    nothing_left()


@pytest.mark.parametrize(
    ("fields", "batch"),
    [
        ({}, (1, 8)),
        ({"channel_order": "bgr"}, (2, 2)),
        ({"kind": "float255", "channel_order": "bgr"}, (1, 8)),
        ({"kind": "normalized"}, (1, 1)),
        ({"resize": "center"}, (1, 1)),
        ({"source_size": [90, 120]}, (1, 2)),
        ({"resize": "stretch", "kind": "float255"}, (1, 1)),
    ],
)
def test_the_client_prints_the_rows_of_the_package(tmp_path, fields, batch):
    model = write_model(tmp_path / "digits.onnx", make_spec(batch=batch, **fields))
    folder = bundle("triton", model, tmp_path / "models").folder
    picture = tmp_path / "picture.png"
    Image.fromarray(structured_pictures(1, 150, 200, seed=4)[0]).save(picture)
    command = [sys.executable, folder / "client.py", tmp_path / "models", "digits", picture]
    environment = os.environ | {"PYTHONPATH": f"{SERVER}{os.pathsep}{ROOT}"}
    printed = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    assert printed.returncode == 0, printed.stderr
    with effdet_deploy.load(model) as detector:
        (found,) = detector.detect([picture])
    assert len(found.boxes) > 0
    assert printed.stdout.splitlines() == [
        " ".join((found.names[label], f"{score:.4f}", *(f"{side:.2f}" for side in box)))
        for label, score, box in zip(found.labels, found.scores, found.boxes, strict=True)
    ]
