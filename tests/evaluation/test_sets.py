"""YOLO and Pascal VOC sets have the boxes of the COCO set that they were written from."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from effdet_deploy.artifact.spec import ClassSpec
from effdet_deploy.cli import main
from effdet_deploy.errors import DataError
from effdet_deploy.evaluation.accuracy import measure
from effdet_deploy.evaluation.cocoset import read_coco
from effdet_deploy.evaluation.predictions import joined_to, notes_on
from effdet_deploy.evaluation.sets import read_pictures, read_set
from effdet_deploy.precision.int8.calibration import calibration_pictures
from tests.evaluation.sets import noisy_results, write_set
from tests.onnx_models import NAMES, detector_spec, write_tiny

if TYPE_CHECKING:
    from pathlib import Path

BOX_TOLERANCE_PX = 1e-3


@pytest.fixture
def coco(tmp_path) -> Path:
    """A COCO set whose boxes lie on whole pixels, since VOC holds only whole numbers."""
    path = write_set(tmp_path / "coco")
    document = json.loads(path.read_text())
    for each in document["annotations"]:
        each["bbox"] = [round(side) for side in each["bbox"]]
        each["area"] = each["bbox"][2] * each["bbox"][3]
    path.write_text(json.dumps(document))
    return path


def by_supervision(coco: Path):
    supervision = pytest.importorskip("supervision")
    return supervision.DetectionDataset.from_coco(str(coco.parent / "images"), str(coco))


@pytest.fixture
def yolo(coco, tmp_path) -> Path:
    """The same set, written by supervision as YOLO."""
    home = tmp_path / "yolo"
    by_supervision(coco).as_yolo(
        str(home / "images"), str(home / "labels"), str(home / "data.yaml")
    )
    (home / "data.yaml").write_text(f"path: .\nval: images\nnames: {json.dumps(NAMES)}\n")
    return home / "data.yaml"


@pytest.fixture
def voc(coco, tmp_path) -> Path:
    """The same set, written by supervision as Pascal VOC."""
    home = tmp_path / "voc"
    by_supervision(coco).as_pascal_voc(str(home / "JPEGImages"), str(home / "Annotations"))
    return home


def boxes(dataset) -> dict[str, list]:
    """Return the class names and boxes of every picture, sorted."""
    found: dict[str, list] = {path.name: [] for path in dataset.paths.values()}
    for each in dataset.document["annotations"]:
        name = dataset.categories[each["category_id"]]
        found[dataset.paths[each["image_id"]].name].append((name, each["bbox"]))
    return {name: sorted(rows) for name, rows in found.items()}


def require_equal(dataset, known) -> None:
    expected = boxes(known)
    assert boxes(dataset).keys() == expected.keys()
    for name, rows in boxes(dataset).items():
        assert [each for each, _ in rows] == [each for each, _ in expected[name]]
        np.testing.assert_allclose(
            [box for _, box in rows], [box for _, box in expected[name]], atol=BOX_TOLERANCE_PX
        )


@pytest.mark.parametrize("form", ["yolo", "voc"])
def test_a_set_in_another_form_has_the_same_boxes_and_the_same_map(request, coco, form):
    known = read_coco(coco)
    dataset = read_set(request.getfixturevalue(form))
    require_equal(dataset, known)
    spec = detector_spec()
    theirs = {each.name: each.category_id for each in spec.classes}
    joined = joined_to(spec, dataset)
    of_set = {name: number for number, name in dataset.categories.items()}
    assert joined.category_of == {number: of_set[name] for name, number in theirs.items()}
    results = noisy_results(known, shift=4)
    numbers = {path.name: number for number, path in dataset.paths.items()}
    moved = [
        row
        | {
            "image_id": numbers[known.paths[row["image_id"]].name],
            "category_id": of_set[known.categories[row["category_id"]]],
        }
        for row in results
    ]
    assert measure(moved, dataset).ap == pytest.approx(measure(results, known).ap, abs=1e-9)


def test_eval_gives_the_same_map_for_a_set_in_every_form(coco, yolo, voc, tmp_path, capsys):
    model = write_tiny(tmp_path / "tiny.onnx")
    found = []
    for data in (coco, yolo, voc):
        result = tmp_path / "result.json"
        assert main(["eval", str(model), "--data", str(data), "--json", str(result)]) == 0
        found.append(json.loads(result.read_text())["models"][0]["ap"])
    assert found == [found[0]] * 3
    assert main(["eval", str(model), "--coco", str(coco)]) == 0


def test_calibration_pictures_come_from_a_set_in_any_form(coco, yolo, voc):
    names = read_pictures(coco).names
    assert read_pictures(yolo).names == read_pictures(voc).names == names
    assert read_pictures(voc, 2).names == names[:2]
    # A VOC set also holds masks, which must not be taken for its pictures.
    (voc / "SegmentationClass").mkdir()
    Image.new("P", (8, 8)).save(voc / "SegmentationClass" / "001.png")
    assert read_pictures(voc).names == names
    with pytest.raises(DataError, match=r"at least 8 pictures, .* holds 6"):
        calibration_pictures(yolo)


def test_rows_of_polygons_and_of_key_points_count_as_boxes(coco, yolo):
    known = read_set(yolo)
    labels = yolo.parent / "labels"
    for file in labels.iterdir():
        rows = [line.split() for line in file.read_text().splitlines()]
        polygons = []
        for label, *values in rows:
            x, y, w, h = map(float, values)
            corners = [(x - w / 2, y), (x, y - h / 2), (x + w / 2, y), (x, y + h / 2)]
            polygons.append(
                " ".join([label, *(f"{each:.9f}" for pair in corners for each in pair)])
            )
        file.write_text("\n".join(polygons))
    require_equal(read_set(yolo), known)
    for file in labels.iterdir():
        file.write_text("0 0.5 0.5 0.25 0.25 0.4 0.4 2 0.6 0.6 1\n")
    yolo.write_text(f"val: images\nkpt_shape: [2, 3]\nnames: {json.dumps(NAMES)}\n")
    (first, *_) = read_set(yolo).document["annotations"]
    assert first["bbox"] == [36, 36, 24, 24]


@pytest.mark.parametrize(
    "given",
    [
        "val: images",
        "path: ..\nval: {name}/images",
        "train: absent\nval: ../images",
        "val: [images]",
        "val: list.txt",
        "test: list.txt",
        "path: {path}\nval: images",
    ],
)
def test_the_pictures_of_a_yolo_set_are_found_however_a_tool_names_them(yolo, given):
    home = yolo.parent
    (home / "list.txt").write_text("".join(f"./images/{k:03d}.png\n" for k in range(1, 7)))
    text = given.format(name=home.name, path=home)
    yolo.write_text(f"{text}\nnames: {json.dumps(NAMES)}\n")
    assert len(read_set(yolo)) == 6
    assert len(read_set(yolo, limit=2)) == 2
    assert len(read_set(yolo, images=home / "images")) == 6


def test_a_picture_without_labels_has_no_objects(yolo):
    (yolo.parent / "labels" / "001.txt").unlink()
    (yolo.parent / "labels" / "002.txt").write_text("\n")
    found = boxes(read_set(yolo))
    assert found["001.png"] == found["002.png"] == []


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("0 0.5 0.5 0.2", "it has 4 numbers"),
        ("0 0.5 0.5 0.2 0.2 0.9", "it has 6 numbers"),
        ("3 0.5 0.5 0.2 0.2", "the class is 3, but it must be from 0 to 2"),
        ("0 48 48 20 20", "not a fraction"),
        ("0 nan 0.5 0.2 0.2", "not a fraction"),
        ("cat 0.5 0.5 0.2 0.2", "could not convert"),
    ],
)
def test_a_wrong_row_of_labels_is_named_with_its_line(yolo, row, said):
    file = yolo.parent / "labels" / "003.txt"
    file.write_text(f"0 0.5 0.5 0.2 0.2\n{row}\n")
    with pytest.raises(DataError, match=rf"Line 2 of the labels '.*003\.txt' .*{said}"):
        read_set(yolo)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("names: [a]", "names no pictures: it has no val or test or train"),
        ("val: absent\nnames: [a]", "does not exist"),
        ("val: images", "names"),
        ("- 1", "cannot be read|no names"),
        ("val: [", "cannot be read"),
    ],
)
def test_a_data_file_that_cannot_be_used_says_why(yolo, text, said):
    yolo.write_text(text)
    with pytest.raises(DataError, match=said):
        read_set(yolo)


def test_a_list_in_a_voc_set_names_the_pictures_that_are_measured(voc):
    lists = voc / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("002\n004\n")
    assert [each.name for each in read_set(lists / "val.txt").paths.values()] == [
        "002.png",
        "004.png",
    ]
    (lists / "square_val.txt").write_text("002 -1\n004  1\n")
    assert len(read_set(lists / "square_val.txt")) == 2
    assert read_pictures(lists / "val.txt").names == ("002.png", "004.png")


def test_a_folder_of_xml_beside_its_pictures_is_a_set(voc, coco):
    for each in (*(voc / "Annotations").iterdir(), *(voc / "JPEGImages").iterdir()):
        each.replace(voc / each.name)
    require_equal(read_set(voc), read_coco(coco))


def edited(voc: Path, old: str, new: str) -> Path:
    """Replace ``old`` with ``new`` in one annotation of the set."""
    file = voc / "Annotations" / "001.xml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    return voc


def test_difficult_objects_are_neither_right_nor_wrong(voc):
    """Difficult objects become crowds: pycocotools counts them neither as found nor as missed."""
    known = read_set(voc)
    assert not any(each["iscrowd"] for each in known.document["annotations"])
    dataset = read_set(edited(voc, "</name>", "</name><difficult>1</difficult>"))
    assert sum(each["iscrowd"] for each in dataset.document["annotations"]) == 1


def test_a_voc_picture_is_found_by_its_file_name_or_by_that_of_its_annotation(voc):
    edited(voc, "<filename>001.png", r"<filename>C:\sets\001.png")
    assert read_set(voc).paths[1].name == "001.png"
    edited(voc, r"<filename>C:\sets\001.png", "<filename>of another machine")
    assert read_set(voc).paths[1].name == "001.png"
    (voc / "JPEGImages" / "001.png").unlink()
    with pytest.raises(DataError, match=r"001\.xml' is not in"):
        read_set(voc)


ENTITIES = '<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;">]>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("declared", [ENTITIES, OUTSIDE])
def test_no_xml_entity_is_expanded(voc, declared):
    """An entity of XML may read another file, or grow without bound."""
    file = voc / "Annotations" / "001.xml"
    body = file.read_text().partition("?>")[2] if "?>" in file.read_text() else file.read_text()
    file.write_text(declared + body.replace("<name>", "<name>&x;", 1))
    with pytest.raises(DataError, match="declares the entity 'x'"):
        read_set(voc)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<xmin>", "<left>", "cannot be read"),
        ("<xmin>", "<xmin>x", "could not convert"),
        ("<xmin>", "<xmin>nan</xmin><xmin>", "xmin is nan"),
        ("<name>", "<name></name><name>", "has no name"),
        ("bndbox>", "box>", "cannot be read"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_named(voc, old, new, said):
    with pytest.raises(DataError, match=rf"001\.xml' .*{said}"):
        read_set(edited(voc, old, new))


def test_classes_of_voc_are_joined_by_name_alone_and_without_a_note(voc):
    dataset = read_set(voc)
    assert notes_on(dataset, [detector_spec()]) == ()
    unnamed = tuple(ClassSpec(f"class {index}", 1 + index) for index in range(3))
    with pytest.raises(DataError, match="nothing in common"):
        joined_to(dataclasses.replace(detector_spec(), classes=unnamed), dataset)
