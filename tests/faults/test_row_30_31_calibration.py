"""Rows 30 and 31 of the fault matrix: the calibration cache, and sets that cannot be used."""

from __future__ import annotations

import importlib
import json

import numpy as np
import onnx
import pytest
from PIL import Image

from effdet_deploy import exporters
from effdet_deploy.errors import DataError, ImageError, UsageError
from effdet_deploy.exporters import EXPORTERS, export
from effdet_deploy.exporters.material import read_material
from effdet_deploy.exporters.options import ExportOptions
from effdet_deploy.onnxgraph.running import graph_inputs
from effdet_deploy.precision.int8 import calibration
from effdet_deploy.precision.int8.calibration import MIN_IMAGES, cached
from effdet_deploy.synthetic import structured_pictures
from tests.precision.tiny_network import SIDE, network_spec, tiny_network

VALUES = ["backbone.bn1.mul", "fpn.cell.0.add"]
PICTURES = structured_pictures(3, SIDE, SIDE, 5)
BATCHES = list(graph_inputs(PICTURES, network_spec()))


@pytest.fixture
def counted(monkeypatch):
    """How often histograms were really collected."""
    calls = []
    collect = calibration.collect

    def counting(*arguments):
        calls.append(arguments)
        return collect(*arguments)

    monkeypatch.setattr(calibration, "collect", counting)
    return calls


def kept(folder):
    return list(folder.glob("*.npz"))


def test_row_30_the_same_weights_and_pictures_are_counted_once(tmp_path, counted):
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
def test_row_30_a_cache_of_something_else_is_not_used(tmp_path, counted, model, values, batches):
    cached(tmp_path, tiny_network(), VALUES, BATCHES)
    cached(tmp_path, model, values, batches)
    assert len(counted) == 2
    assert len(kept(tmp_path)) == 2


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_row_30_a_damaged_cache_is_made_again(tmp_path, counted, content):
    cached(tmp_path, tiny_network(), VALUES, BATCHES)
    (path,) = kept(tmp_path)
    path.write_bytes(content)
    cached(tmp_path, tiny_network(), VALUES, BATCHES)
    assert len(counted) == 2
    assert path.stat().st_size > 100
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def options(source):
    return ExportOptions(precision="int8", target="openvino", calibration=source)


def test_row_31_an_empty_set_is_refused(tmp_path):
    with pytest.raises(ImageError, match="no picture"):
        read_material(options(tmp_path))


def test_row_31_a_set_of_too_few_pictures_is_refused_with_both_numbers(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    with pytest.raises(DataError, match=f"at least {MIN_IMAGES} pictures; .* holds 1"):
        read_material(options(tmp_path))


def test_row_31_an_unreadable_picture_is_named(tmp_path):
    for index in range(MIN_IMAGES):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{index}.png")
    (tmp_path / "5.png").write_bytes(b"\x89PNG\r\n\x1a\ntruncated")
    with pytest.raises(ImageError, match=r"5\.png"):
        read_material(options(tmp_path))


def test_row_31_a_set_is_refused_before_torch_is_imported(tmp_path, monkeypatch):
    def importing(name):
        assert name != EXPORTERS[".onnx"], "the exporter was imported"
        return importlib.import_module(name)

    monkeypatch.setattr(exporters, "_imported", importing)
    with pytest.raises(ImageError):
        export("d0", tmp_path / "model.onnx", options(tmp_path / "absent"))


def test_row_31_the_pictures_of_the_budget_may_stand_in_another_folder(tmp_path):
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
        ({"precision": "int8"}, "needs pictures to calibrate on"),
        ({"precision": "fp16", "max_map_drop": 0.5}, "only serves --int8"),
        ({"precision": "fp32", "precision_file": "p.json"}, "only serves --int8"),
        ({"precision": "fp32", "calibration": "d"}, "only serves a reduced precision"),
        ({"precision": "int8", "calibration": "d", "max_map_drop": 1.0}, "only work together"),
        ({"precision": "int8", "calibration": "d", "eval_images": "i"}, "which was not given"),
        ({"precision": "fp16", "eval_images": "i"}, "only serves --int8"),
        ({"precision": "int8", "calibration": "d", "opset": 18}, "19 or more"),
        (
            {
                "precision": "int8",
                "calibration": "d",
                "max_map_drop": 1.0,
                "eval_data": "e",
                "precision_file": "p",
            },
            "would search for it",
        ),
    ],
)
def test_row_31_options_without_what_they_need_are_refused(fields, said):
    with pytest.raises(UsageError, match=said):
        ExportOptions(**fields)


def test_row_30_keys_do_not_depend_on_the_run():
    key = calibration.calibration_key(tiny_network(), VALUES, BATCHES)
    copy = onnx.ModelProto.FromString(tiny_network().SerializeToString())
    assert calibration.calibration_key(copy, VALUES, BATCHES) == key


def test_row_30_a_file_damaged_inside_is_made_again(tmp_path, counted):
    first = cached(tmp_path, tiny_network(), VALUES, BATCHES)
    (path,) = kept(tmp_path)
    content = path.read_bytes()
    for at in range(60, len(content) - 60, len(content) // 25):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        again = cached(tmp_path, tiny_network(), VALUES, BATCHES)
        for value, found in first.items():
            assert (again[value].low, again[value].high) == (found.low, found.high)
            np.testing.assert_array_equal(again[value].counts, found.counts)


def test_row_30_what_cannot_be_kept_was_still_found(tmp_path, counted):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert set(cached(blocked / "cache", tiny_network(), VALUES, BATCHES)) == set(VALUES)
