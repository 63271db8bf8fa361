"""Calibration caches and sets of pictures that cannot be used."""

from __future__ import annotations

import dataclasses
import importlib
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from PIL import Image

from effdet_deploy import exporters
from effdet_deploy.artifact.spec import PrecisionSpec
from effdet_deploy.errors import DataError, ImageError, UsageError
from effdet_deploy.exporters import EXPORTERS, export
from effdet_deploy.exporters.material import read_material
from effdet_deploy.exporters.options import ExportOptions
from effdet_deploy.onnxgraph.running import graph_inputs
from effdet_deploy.precision.int8 import calibration
from effdet_deploy.precision.int8.budget import BudgetedAccuracy
from effdet_deploy.precision.int8.calibration import MIN_IMAGES, cached
from effdet_deploy.progress import silent
from effdet_deploy.synthetic import structured_pictures
from tests.evaluation.sets import write_set
from tests.precision.tiny_network import SIDE, network_spec, tiny_network

VALUES = ["backbone.bn1.mul", "fpn.cell.0.add"]
PICTURES = structured_pictures(3, SIDE, SIDE, 5)
BATCHES = list(graph_inputs(PICTURES, network_spec()))


@pytest.fixture
def counted(monkeypatch):
    """Return a list that grows by one whenever histograms are really collected."""
    calls = []
    collect = calibration.collect

    def counting(*arguments):
        calls.append(arguments)
        return collect(*arguments)

    monkeypatch.setattr(calibration, "collect", counting)
    return calls


def cache_files(folder):
    return list(folder.glob("*.npz"))


def test_histograms_of_the_same_weights_and_pictures_are_collected_once(tmp_path, counted):
    first = cached(tmp_path, tiny_network(), VALUES, BATCHES)
    again = cached(tmp_path, tiny_network(), VALUES, BATCHES)
    assert len(counted) == 1
    for value in VALUES:
        np.testing.assert_array_equal(first[value].counts, again[value].counts)
        assert (first[value].low, first[value].high) == (again[value].low, again[value].high)


@pytest.mark.parametrize(
    ("model", "values", "batches"),
    [
        (tiny_network(seed=1), VALUES, BATCHES),
        (tiny_network(), VALUES, BATCHES[:2]),
        (tiny_network(), VALUES[:1], BATCHES),
    ],
    ids=["other weights", "other pictures", "other tensors"],
)
def test_a_cache_for_other_weights_pictures_or_tensors_is_not_used(
    tmp_path, counted, model, values, batches
):
    cached(tmp_path, tiny_network(), VALUES, BATCHES)
    cached(tmp_path, model, values, batches)
    assert len(counted) == 2
    assert len(cache_files(tmp_path)) == 2


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_a_damaged_cache_is_made_again(tmp_path, counted, content):
    cached(tmp_path, tiny_network(), VALUES, BATCHES)
    (path,) = cache_files(tmp_path)
    path.write_bytes(content)
    cached(tmp_path, tiny_network(), VALUES, BATCHES)
    assert len(counted) == 2
    assert path.stat().st_size > 100
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.fixture
def opened(monkeypatch):
    """Return a list of the files that were opened, both pictures and documents."""
    found = []
    really_open = io.open

    def noting(file, *arguments, **named):
        found.append(Path(file))
        return really_open(file, *arguments, **named)

    monkeypatch.setattr("builtins.open", noting)
    monkeypatch.setattr("io.open", noting)
    return found


@pytest.fixture
def tiny_export(tmp_path, monkeypatch):
    """Return a function that exports a tiny network and returns its verification pictures."""
    road = importlib.import_module(EXPORTERS[".onnx"])
    precision = PrecisionSpec("int8", "openvino", int8_range="portable")
    spec = dataclasses.replace(network_spec(), precision=precision)
    shown = []

    def write(_model, asked, _opset, path, _progress):
        onnx.save(tiny_network(), path)
        return asked, ()

    source = SimpleNamespace(model=None, notes=())
    monkeypatch.setattr(road, "load_source", lambda *_: source)
    monkeypatch.setattr(road, "specification_of", lambda *_: spec)
    monkeypatch.setattr(road, "write_graph", write)
    monkeypatch.setattr(road, "verify_onnx", lambda *given: shown.extend(given[3]))
    monkeypatch.setattr(road, "run_as_given", lambda *_: source)
    monkeypatch.setattr(road, "settle_candidates", lambda *_: (spec, ()))
    monkeypatch.setattr("effdet_deploy.pytorch.reference.reference_of", lambda *_: source)
    monkeypatch.setattr(BudgetedAccuracy, "measure", lambda *_: 0.5)

    def exported(chosen):
        road.export("d0", tmp_path / "model.onnx", chosen, read_material(chosen), silent)
        return shown

    return exported


def write_pictures(folder):
    folder.mkdir()
    for index, picture in enumerate(structured_pictures(MIN_IMAGES, 64, 48, 5)):
        Image.fromarray(picture).save(folder / f"{index}.png")
    return folder


def options(source):
    return ExportOptions(precision="int8", target="openvino", calibration=source)


def test_an_empty_set_is_refused(tmp_path):
    with pytest.raises(ImageError, match="no picture"):
        read_material(options(tmp_path))


def test_a_set_of_too_few_pictures_is_refused_with_both_numbers(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    with pytest.raises(DataError, match=f"at least {MIN_IMAGES} pictures, but .* holds 1"):
        read_material(options(tmp_path))


def test_an_unreadable_picture_is_named_before_the_graph_is_traced(tmp_path, tiny_export):
    pictures = write_pictures(tmp_path / "pictures")
    (pictures / "5.png").write_bytes(b"\x89PNG\r\n\x1a\ntruncated")
    with pytest.raises(DataError, match=r"only 7 of 8 can be read; .*5\.png"):
        tiny_export(options(pictures))


def test_truncated_pictures_are_left_out_with_a_count_where_enough_are_left(tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    Image.new("RGB", (8, 8)).save(pictures / "8.png")
    whole = (pictures / "5.png").read_bytes()
    (pictures / "5.png").write_bytes(whole[: len(whole) // 2])
    spec = network_spec()
    told: list[str] = []
    material = read_material(options(pictures)).decoded(spec.input, told.append)
    assert told == ["reading the pictures"]
    assert material.ranges.names == tuple(f"{index}.png" for index in range(9) if index != 5)
    (said,) = material.notes_for(spec)
    assert said.startswith("1 of 9 pictures cannot be read and were left out")
    assert "5.png" in said


def test_pictures_and_annotations_are_opened_once(tmp_path, tiny_export, opened):
    pictures = write_pictures(tmp_path / "pictures")
    annotations = write_set(tmp_path / "set", images=2)
    joined = tmp_path / "map.json"
    joined.write_text(json.dumps({"0": 10, "1": 11, "2": 12}))
    budget = {"eval_data": annotations, "max_map_drop": 99.0, "class_map": joined}
    opened.clear()
    shown = tiny_export(dataclasses.replace(options(pictures), **budget))
    assert len(shown) == MIN_IMAGES
    ours = [path for path in opened if path.parent == pictures or path == annotations]
    assert sorted(ours) == sorted([annotations, *pictures.iterdir()])


def test_a_set_is_refused_before_torch_is_imported(tmp_path, monkeypatch):
    def importing(name):
        assert name != EXPORTERS[".onnx"], "the exporter was imported"
        return importlib.import_module(name)

    monkeypatch.setattr(exporters, "_imported", importing)
    with pytest.raises(ImageError):
        export("d0", tmp_path / "model.onnx", options(tmp_path / "absent"))


def test_the_pictures_of_the_budget_may_lie_in_another_folder(tmp_path):
    annotations, pictures = coco_layout(tmp_path)
    given = {"precision": "int8", "calibration": pictures, "eval_data": annotations}
    with pytest.raises(DataError, match="--eval-images"):
        read_material(ExportOptions(**given, max_map_drop=0.5))
    read_material(ExportOptions(**given, max_map_drop=0.5, eval_images=pictures))


def coco_layout(folder):
    """Write a set as COCO is laid out: annotations in one folder, their pictures in another."""
    names = [f"{index}.png" for index in range(MIN_IMAGES)]
    pictures = folder / "val2017"
    pictures.mkdir()
    for name in names:
        Image.new("RGB", (SIDE, SIDE)).save(pictures / name)
    box = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}
    document = {
        "images": [{"id": index, "file_name": name} for index, name in enumerate(names)],
        "annotations": [box],
        "categories": [{"id": 1, "name": "person"}],
    }
    annotations = folder / "annotations" / "instances_val2017.json"
    annotations.parent.mkdir()
    annotations.write_text(json.dumps(document))
    return annotations, pictures


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"precision": "int8"}, "needs pictures for calibration"),
        ({"precision": "fp16", "max_map_drop": 0.5}, "only works with --int8"),
        ({"precision": "fp32", "precision_file": "p.json"}, "only works with --int8"),
        ({"precision": "fp32", "calibration": "d"}, "only works with a reduced precision"),
        ({"precision": "int8", "calibration": "d", "max_map_drop": 1.0}, "only work together"),
        (
            {"precision": "int8", "calibration": "d", "eval_images": "i"},
            "needs --eval-data as well",
        ),
        ({"precision": "fp16", "eval_images": "i"}, "only works with --int8"),
        ({"precision": "int8", "calibration": "d", "opset": 18}, "19 or more"),
        (
            {
                "precision": "int8",
                "calibration": "d",
                "max_map_drop": 1.0,
                "eval_data": "e",
                "precision_file": "p",
            },
            "would search for them",
        ),
    ],
)
def test_options_without_what_they_need_are_refused(fields, said):
    with pytest.raises(UsageError, match=said):
        ExportOptions(**fields)


def test_the_key_of_a_cache_does_not_depend_on_the_run():
    key = calibration.calibration_key(tiny_network(), VALUES, BATCHES)
    copy = onnx.ModelProto.FromString(tiny_network().SerializeToString())
    assert calibration.calibration_key(copy, VALUES, BATCHES) == key


def test_a_file_damaged_inside_is_made_again(tmp_path, counted):
    first = cached(tmp_path, tiny_network(), VALUES, BATCHES)
    (path,) = cache_files(tmp_path)
    content = path.read_bytes()
    for at in range(60, len(content) - 60, len(content) // 25):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        again = cached(tmp_path, tiny_network(), VALUES, BATCHES)
        for value, found in first.items():
            assert (again[value].low, again[value].high) == (found.low, found.high)
            np.testing.assert_array_equal(again[value].counts, found.counts)


def test_histograms_that_cannot_be_cached_are_still_used(tmp_path, counted):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert set(cached(blocked / "cache", tiny_network(), VALUES, BATCHES)) == set(VALUES)
