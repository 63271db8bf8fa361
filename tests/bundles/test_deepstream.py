"""A folder for nvinfer: its configuration, and its parser compiled and fed with real outputs."""

from __future__ import annotations

import configparser
import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

import effdet_deploy
from effdet_deploy.artifact.spec import METADATA_KEY, BatchSpec, PrecisionSpec
from effdet_deploy.bundles import BundleOptions, bundle
from effdet_deploy.errors import DataError, ModelFileError, UsageError
from effdet_deploy.exporters import ExportOptions, export
from tests.onnx_models import BOXES, CLASSES, NAMES, SIDE, WEIGHTS, detector_spec, write_tiny

HERE = Path(__file__).parent / "deepstream"
ROOT = Path(__file__).parents[2]
FRAME = (720, 1280)
CONFIGURATION = "config_infer_primary.txt"
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None or shutil.which("make") is None,
    reason="g++ or make is missing: would show that the parser compiles and gives right objects",
)


def framed(batch=None, kind="float255", **output):
    """Return the spec of a tiny model for frames that DeepStream scales."""
    spec = detector_spec(batch=batch or BatchSpec(), **output)
    taken = dataclasses.replace(spec.input, kind=kind, frame_size=FRAME)
    return dataclasses.replace(spec, input=taken)


def read(folder):
    """Return the configuration as GLib's key files are read: sections, keys, no interpolation."""
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str
    parser.read_string((folder / CONFIGURATION).read_text(encoding="utf-8"))
    return parser


@pytest.fixture
def make(tmp_path):
    """Write a tiny model and bundle it for DeepStream."""

    def bundled(spec=None, model=None, **options):
        model = model or write_tiny(tmp_path / "shapes.onnx", spec or framed())
        return bundle("deepstream", model, tmp_path / "ds", BundleOptions(**options))

    return bundled


def test_a_bundle_is_the_model_its_configuration_its_labels_and_a_parser(make, tmp_path):
    made = make()
    names = [CONFIGURATION, "Makefile", "labels.txt", "nvdsinfer_effdet.cpp", "shapes.onnx"]
    assert sorted(made.files) == sorted(names)
    assert made.folder == tmp_path / "ds"
    assert (made.folder / "shapes.onnx").read_bytes() == (tmp_path / "shapes.onnx").read_bytes()
    assert (made.folder / "labels.txt").read_text().splitlines() == list(NAMES)
    assert made.next[0].startswith("effdet-deploy build ")
    assert made.next[1] == f"make -C {made.folder}"
    assert "width=1280 height=720" in made.next[2]


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("batch", [BatchSpec(), BatchSpec(1, 2, 8)])
def test_the_configuration_says_what_the_graph_says(make, order, batch):
    spec = framed(batch)
    taken = dataclasses.replace(spec.input, channel_order=order)
    made = make(dataclasses.replace(spec, input=taken))
    config = read(made.folder)
    said = config["property"]
    graph = onnx.load(made.folder / "shapes.onnx").graph
    (image,) = graph.input
    _, *sides = (each.dim_value for each in image.type.tensor_type.shape.dim)
    assert image.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert said["infer-dims"] == ";".join(map(str, sides)) == f"3;{SIDE};{SIDE}"
    assert said["output-blob-names"] == ";".join(each.name for each in graph.output)
    assert said["batch-size"] == str(batch.maximum)
    assert said["num-detected-classes"] == str(len(NAMES))
    assert said["model-color-format"] == {"rgb": "0", "bgr": "1"}[order]
    assert said["net-scale-factor"] == "1.0"
    assert (said["maintain-aspect-ratio"], said["symmetric-padding"]) == ("1", "0")
    # It is a detector that gets whole frames, and nvinfer does not cluster its objects again.
    assert (said["network-type"], said["process-mode"], said["cluster-mode"]) == ("0", "1", "4")
    assert (made.folder / said["labelfile-path"]).is_file()
    assert (made.folder / said["onnx-file"]).is_file()
    assert said["model-engine-file"] == "shapes.engine"
    assert config["class-attrs-all"]["pre-cluster-threshold"] == "0.3"


@pytest.mark.parametrize(("kind", "mode"), [("fp32", "0"), ("int8", "1"), ("fp16", "2")])
def test_nvinfer_builds_nothing_in_a_precision_of_its_own(make, kind, mode):
    """In FP16 and INT8, nvinfer gets only our engine; from an ONNX file it would build another."""
    made = make(dataclasses.replace(framed(), precision=PrecisionSpec(kind, "tensorrt")))
    said = read(made.folder)["property"]
    assert said["network-mode"] == mode
    assert ("onnx-file" in said) == (kind == "fp32")
    assert (made.folder / "shapes.onnx").is_file()


@pytest.mark.parametrize(
    ("resize", "expected"), [("letterbox", ("1", "0")), ("center", ("1", "1")), ("stretch", "00")]
)
def test_nvinfer_scales_as_the_model_was_trained(make, resize, expected):
    spec = framed()
    taken = dataclasses.replace(spec.input, resize=resize)
    said = read(make(dataclasses.replace(spec, input=taken)).folder)["property"]
    assert (said["maintain-aspect-ratio"], said["symmetric-padding"]) == tuple(expected)


def test_an_engine_is_copied_as_it_is_and_nothing_is_left_to_build(make, write_engine):
    engine = write_engine(framed(BatchSpec(1, 1, 4)))
    made = make(model=engine)
    said = read(made.folder)["property"]
    assert "onnx-file" not in said
    assert (made.folder / said["model-engine-file"]).read_bytes() == engine.read_bytes()
    assert said["batch-size"] == "4"
    assert made.next[0].startswith("make ")


def test_options_reach_the_configuration(make, tmp_path):
    (tmp_path / "names.txt").write_text("one\ntwo\nthree\n")
    options = {"batch": 3, "score_threshold": 0.45, "name": "mine"}
    made = make(framed(BatchSpec(1, 1, 4)), labels=tmp_path / "names.txt", **options)
    config = read(made.folder)
    assert config["property"]["batch-size"] == "3"
    assert config["property"]["onnx-file"] == "mine.onnx"
    assert config["class-attrs-all"]["pre-cluster-threshold"] == "0.45"
    assert (made.folder / "labels.txt").read_text() == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"circle": 0.5}, {"all": "0.3", "1": "0.5"}),
        ({"*": 0.6, "ring": 0.25}, {"all": "0.6", "2": "0.25"}),
        ({"square": 0.7, "circle": 0.7, "ring": 0.7}, {"all": "0.7"}),
        (0.2, {"all": "0.2"}),
    ],
)
def test_each_class_may_have_its_own_threshold(make, asked, expected):
    config = read(make(score_threshold=asked).folder)
    found = {
        section.removeprefix("class-attrs-"): config[section]["pre-cluster-threshold"]
        for section in config.sections()
        if section.startswith("class-attrs-")
    }
    assert found == expected


def test_the_sidecar_goes_along_so_that_a_build_knows_what_was_verified(make, tmp_path):
    model = write_tiny(tmp_path / "shapes.onnx", framed())
    model.with_name("shapes.onnx.json").write_text('{"sha256": "", "verification": {}}')
    made = make(model=model)
    assert "shapes.onnx.json" in made.files


@pytest.mark.parametrize(
    ("spec", "options", "error", "expected"),
    [
        (detector_spec(), {}, ModelFileError, "--target deepstream"),
        (framed(kind="uint8"), {}, ModelFileError, "--target deepstream"),
        (framed(nms="none"), {}, ModelFileError, "raw heads"),
        (framed(BatchSpec(4, 4, 4)), {}, ModelFileError, r"not full.*--batch 1\.\.4"),
        (framed(BatchSpec(2, 2, 4)), {}, ModelFileError, r"not full.*--batch 1\.\.4"),
        (
            framed(),
            {"batch": 4},
            UsageError,
            r"takes a batch of 1\. .*or export it with --batch 1\.\.4",
        ),
        (framed(), {"score_threshold": 0.001}, UsageError, "scores below 0.01"),
        (framed(), {"score_threshold": 1.5}, UsageError, "between 0 and 1"),
        (framed(), {"score_threshold": {"oval": 0.5}}, UsageError, "no class named 'oval'"),
    ],
)
def test_models_and_options_that_do_not_fit_are_refused_before_anything_is_written(
    make, nothing_left, spec, options, error, expected
):
    with pytest.raises(error, match=expected):
        make(spec, **options)
    nothing_left()


@pytest.mark.parametrize(
    ("content", "expected"), [(None, "cannot be read"), ("one\ntwo\n", "2 labels for a model of 3")]
)
def test_missing_or_too_few_labels_are_refused(make, tmp_path, nothing_left, content, expected):
    if content is not None:
        (tmp_path / "names.txt").write_text(content)
    with pytest.raises(DataError, match=expected):
        make(labels=tmp_path / "names.txt")
    nothing_left()


def test_triton_refuses_what_is_laid_out_for_deepstream_and_its_options(tmp_path):
    model = write_tiny(tmp_path / "shapes.onnx", framed())
    with pytest.raises(ModelFileError, match="was exported for DeepStream"):
        bundle("triton", model, tmp_path / "models")
    with pytest.raises(UsageError, match="--single-output is not for triton"):
        bundle("triton", model, tmp_path / "models", BundleOptions(single_output=True))


@pytest.fixture(scope="module")
def parse_tool(tmp_path_factory):
    """A program in the place of nvinfer: it calls a parser and prints the objects that it gets."""
    tool = tmp_path_factory.mktemp("deepstream") / "parse"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-I", HERE / "sources" / "includes"]
    subprocess.run(["g++", *flags, HERE / "parse.cpp", "-o", tool, "-ldl"], check=True)
    return tool


@pytest.fixture
def feed(parse_tool, tmp_path):
    """Return a function that gives the outputs of one frame to a parser and returns its objects."""

    def run(library, outputs, thresholds, function="NvDsInferParseEffdet", size=(SIDE, SIDE)):
        layers = []
        for name, array in outputs.items():
            path = tmp_path / f"{name}.bin"
            path.write_bytes(np.ascontiguousarray(array).tobytes())
            layers += [name, array.dtype.name, ",".join(map(str, array.shape)), path]
        limits = ",".join(map(str, thresholds))
        command = [parse_tool, library, function, str(size[1]), str(size[0]), limits, *layers]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        rows = [[float(each) for each in line.split()] for line in done.stdout.splitlines()]
        return done, np.array(rows).reshape(-1, 6)

    return run


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the parser for each box format, made by the bundle's own Makefile."""
    libraries = {}
    for box_format in ("xyxy", "yxyx"):
        folder = tmp_path_factory.mktemp(box_format)
        model = write_tiny(folder / "shapes.onnx", framed(box_format=box_format))
        bundle("deepstream", model, folder / "ds")
        command = ["make", "-s", "-C", folder / "ds", f"DEEPSTREAM={HERE}", "CXXFLAGS=-Werror"]
        subprocess.run(command, check=True, timeout=120)
        libraries[box_format] = folder / "ds" / read(folder / "ds")["property"]["custom-lib-path"]
    return libraries


@pytest.fixture
def outputs(tmp_path):
    """What ONNX Runtime computes for a bright frame."""
    return outputs_of(write_tiny(tmp_path / "shapes.onnx", framed()), 255)


def outputs_of(path, brightness, batch=1):
    session = onnxruntime.InferenceSession(path)
    images = np.full((batch, 3, SIDE, SIDE), brightness, np.float32)
    names = [each.name for each in session.get_outputs()]
    found = session.run(names, {"images": images})
    return {name: each[0] for name, each in zip(names, found, strict=True)}


@needs_compiler
@pytest.mark.parametrize("box_format", ["xyxy", "yxyx"])
def test_our_parser_gives_the_rows_of_the_model(built, feed, tmp_path, box_format):
    model = write_tiny(tmp_path / "shapes.onnx", framed(box_format=box_format))
    _, objects = feed(built[box_format], outputs_of(model, 200), [0.01] * 3)
    assert objects[:, 0].tolist() == CLASSES.tolist()
    np.testing.assert_allclose(objects[:, 1], WEIGHTS * 200 / 255, rtol=1e-6)
    np.testing.assert_allclose(objects[:, 2:4], BOXES[:, :2])
    np.testing.assert_allclose(objects[:, 4:], BOXES[:, 2:] - BOXES[:, :2])


@needs_compiler
def test_each_class_has_its_own_threshold_and_unknown_classes_are_left_out(built, feed, outputs):
    for thresholds, kept in (
        ([0.5, 0.5, 0.9], [0, 2]),
        ([0.3, 0.7, 0.3], [0, 1, 3]),
        ([1.1, 0.1, 0.1], [1, 2]),
        # Only two classes are configured: a row of class 2 is left out, and later rows still count.
        ([0.1, 0.1], [0, 2, 3]),
    ):
        _, objects = feed(built["xyxy"], outputs, thresholds)
        assert objects[:, 0].tolist() == CLASSES[kept].tolist()


@needs_compiler
def test_rows_without_an_area_or_a_number_are_left_out(built, feed, outputs):
    library = built["xyxy"]
    boxes = outputs["detection_boxes"].copy()
    boxes[0, 2] = boxes[0, 0]
    boxes[1, 3] = np.nan
    boxes[2, 0] = -np.inf
    _, objects = feed(library, outputs | {"detection_boxes": boxes}, [0.01] * 3)
    assert objects[:, 0].tolist() == CLASSES[3:].tolist()
    scores = np.full_like(outputs["detection_scores"], np.nan)
    _, objects = feed(library, outputs | {"detection_scores": scores}, [0.01] * 3)
    assert len(objects) == 0


@needs_compiler
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda o: o.pop("detection_classes"), "no output 'detection_classes'"),
        (lambda o: o.update(detection_classes=np.float32(CLASSES)), "of another type"),
        (lambda o: o.update(num_detections=np.int32([5])), "of different sizes"),
        (lambda o: o.update(num_detections=np.int32([-1])), "of different sizes"),
        (lambda o: o.update(detection_boxes=BOXES[:3].copy()), "of different sizes"),
    ],
)
def test_outputs_that_the_parser_does_not_know_are_refused(built, feed, outputs, change, said):
    change(outputs)
    done, objects = feed(built["xyxy"], outputs, [0.01] * 3)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(objects) == 0


@pytest.mark.parametrize("box_format", ["xyxy", "yxyx"])
@pytest.mark.parametrize("batch", [BatchSpec(), BatchSpec(1, 2, 4)])
def test_the_single_output_holds_what_the_four_outputs_hold(make, tmp_path, box_format, batch):
    """Parsers written for YOLO read rows of box, score and class from one output."""
    made = make(framed(batch, box_format=box_format), single_output=True)
    assert sorted(made.files) == [CONFIGURATION, "labels.txt", "shapes.onnx"]
    (found,) = outputs_of(made.folder / "shapes.onnx", 255, batch.maximum).values()
    expected = np.column_stack([BOXES, WEIGHTS, CLASSES])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    model = onnx.load(made.folder / "shapes.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert METADATA_KEY not in {each.key for each in model.metadata_props}
    said = read(made.folder)["property"]
    assert said["parse-bbox-func-name"] == "NvDsInferParseYolo"
    assert [each.name for each in model.graph.output] == [said["output-blob-names"]]
    assert "--stronglyTyped" in made.next[0]
    assert ("--maxShapes=images:4x3x128x128" in made.next[0]) == (batch.maximum == 4)


def test_an_engine_cannot_have_its_outputs_joined(make, write_engine, nothing_left):
    with pytest.raises(UsageError, match="an engine is already compiled"):
        make(model=write_engine(framed()), single_output=True)
    nothing_left()


@needs_compiler
@pytest.mark.slow
def test_frames_of_the_digits_detector_give_the_objects_of_the_package(built, feed, tmp_path):
    rows, columns, side = *FRAME, 256
    weights = ROOT / "examples" / "digits" / "digits_d0.safetensors"
    options = ExportOptions(weights=str(weights), verify=False)
    plain = export(None, tmp_path / "digits.onnx", options).path
    framed = dataclasses.replace(options, target="deepstream", frame_size=FRAME)
    session = onnxruntime.InferenceSession(export(None, tmp_path / "ds.onnx", framed).path)
    names = [each.name for each in session.get_outputs()]
    scenes = [sys.executable, ROOT / "examples" / "digits" / "scenes.py", "--split", "test"]
    subprocess.run([*scenes, "--seed", "3", "--count", "8", tmp_path / "scenes"], check=True)
    total = 0
    with effdet_deploy.load(plain, "onnxruntime", "cpu") as detector:
        for path in sorted((tmp_path / "scenes" / "images").iterdir()):
            frame = Image.open(path).convert("RGB").resize((columns, rows))
            # Scaled to the width, over black, as nvinfer does it; only the filter differs.
            scaled = frame.resize((side, side * rows // columns), Image.Resampling.BILINEAR)
            images = np.zeros((1, 3, side, side), np.float32)
            images[0, :, : scaled.height] = np.asarray(scaled).transpose(2, 0, 1)
            found = session.run(names, {"images": images})
            outputs = {name: each[0] for name, each in zip(names, found, strict=True)}
            _, objects = feed(built["xyxy"], outputs, [0.3] * 10, size=(side, side))
            (expected,) = detector.detect([frame], 0.3)
            assert objects[:, 0].tolist() == expected.labels.tolist()
            np.testing.assert_allclose(objects[:, 1], expected.scores, atol=1e-5)
            corners = np.hstack([objects[:, 2:4], objects[:, 2:4] + objects[:, 4:]])
            np.testing.assert_allclose(corners * columns / side, expected.boxes, atol=0.01)
            total += len(objects)
    assert total > 30
