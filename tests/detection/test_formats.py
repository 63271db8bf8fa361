"""Result files in every format: other programs read them, and names of any kind come through."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from effdet_deploy.artifact.spec import ClassSpec
from effdet_deploy.detection.detections import Detections
from effdet_deploy.detection.formats import FORMS, read_formats, require_free, writing
from effdet_deploy.detection.naming import places_of
from effdet_deploy.detection.writers import CSV_COLUMNS, Labeled
from effdet_deploy.errors import ModelFileError, UnknownNameError, UsageError

NAMES = ("square", 'a, "quoted"\nname', "größe 像 \x85\U0001f600: -")
IDS = (7, 3, 90)
CLASSES = tuple(ClassSpec(*each) for each in zip(NAMES, IDS, strict=True))
SIZE = (200, 100)
FORMATS = tuple(FORMS)
# Rounding a fraction to six decimals moves a corner by less than this, on a side of 200 pixels.
PIXEL = 2e-4


def found(*rows) -> Detections:
    """Return detections with these rows of (box, score, label)."""
    return Detections(
        boxes=np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        scores=np.array([row[1] for row in rows], np.float32),
        labels=np.array([row[2] for row in rows], np.int64),
        names=NAMES,
        category_ids=IDS,
    )


MANY = found(((10, 20, 60.5, 80), 0.9, 1), ((0, 0, 200, 100), 0.5, 0), ((1, 1, 9, 9), 0.4, 2))
NOTHING = found()


def save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def written(tmp_path):
    """A folder with the results of two pictures in every format."""
    pictures = [save(tmp_path / "in" / "a.png"), save(tmp_path / "in" / "b.png")]
    return write(tmp_path / "out", dict(zip(pictures, (MANY, NOTHING), strict=True)))


def write(output: Path, results: dict[Path, Detections], formats=FORMATS, classes=CLASSES) -> Path:
    output.mkdir(exist_ok=True)
    places = places_of(list(results))
    with writing(formats, output, classes) as add:
        for path, detections in results.items():
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            add(Labeled(path, places[path], SIZE, detections, pixels))
    return output


def test_pycocotools_reads_the_results_with_the_set_beside_them(written):
    coco = pytest.importorskip("pycocotools.coco")
    truth = coco.COCO(str(written / "detections.coco.json"))
    assert {each["id"]: each["name"] for each in truth.loadCats(truth.getCatIds())} == dict(
        zip(IDS, NAMES, strict=True)
    )
    loaded = truth.loadRes(str(written / "detections.coco-results.json"))
    assert sorted(truth.getImgIds()) == [1, 2]
    rows = loaded.loadAnns(loaded.getAnnIds(imgIds=[1]))
    assert [each["bbox"] for each in rows] == [[10, 20, 50.5, 60], [0, 0, 200, 100], [1, 1, 8, 8]]
    assert [each["category_id"] for each in rows] == [3, 7, 90]
    assert not loaded.getAnnIds(imgIds=[2])


def boxes_by_class(dataset) -> list[dict[str, list[list[float]]]]:
    """Return the boxes that supervision read, for every picture in order of their names."""
    return [
        {
            dataset.classes[label]: box.tolist()
            for box, label in zip(each.xyxy, each.class_id, strict=True)
        }
        for each in (dataset.annotations[name] for name in sorted(dataset.annotations))
    ]


EXPECTED = [
    {NAMES[1]: [10, 20, 60.5, 80], NAMES[0]: [0, 0, 200, 100], NAMES[2]: [1, 1, 9, 9]},
    {},
]


def require_as_expected(dataset) -> None:
    for read, expected in zip(boxes_by_class(dataset), EXPECTED, strict=True):
        assert read.keys() == expected.keys()
        for name, box in expected.items():
            assert read[name] == pytest.approx(box, abs=200 * PIXEL)


def test_supervision_reads_the_coco_set(written, tmp_path):
    supervision = pytest.importorskip("supervision")
    require_as_expected(
        supervision.DetectionDataset.from_coco(
            str(tmp_path / "in"), str(written / "detections.coco.json")
        )
    )


@pytest.mark.parametrize("form", ["yolo", "yolo-conf"])
def test_supervision_reads_yolo_files_with_scores_and_without(written, tmp_path, form):
    supervision = pytest.importorskip("supervision")
    require_as_expected(
        supervision.DetectionDataset.from_yolo(
            str(tmp_path / "in"),
            str(written / form / "labels"),
            str(written / form / "data.yaml"),
        )
    )


def test_yolo_rows_hold_fractions_and_the_score_where_it_is_asked_for(written):
    plain = (written / "yolo" / "labels" / "a.txt").read_text().splitlines()
    scored = (written / "yolo-conf" / "labels" / "a.txt").read_text().splitlines()
    assert plain[1] == "0 0.500000 0.500000 1.000000 1.000000"
    assert [each.split()[:5] for each in scored] == [each.split() for each in plain]
    assert scored[0].split()[5] == "0.900000"
    assert (written / "yolo" / "labels" / "b.txt").read_text() == ""


def test_data_yaml_names_every_class_in_the_order_of_the_outputs(written):
    document = yaml.safe_load((written / "yolo" / "data.yaml").read_text(encoding="utf-8"))
    assert document["names"] == dict(enumerate(NAMES))
    assert (document["nc"], document["train"], document["val"]) == (3, "images", "images")


def test_supervision_reads_labelme_files(written, tmp_path):
    supervision = pytest.importorskip("supervision")
    if not hasattr(supervision.DetectionDataset, "from_labelme"):
        pytest.skip("the installed supervision does not read labelme files")
    require_as_expected(
        supervision.DetectionDataset.from_labelme(str(tmp_path / "in"), str(written / "labelme"))
    )


def test_labelme_files_have_what_labelme_loads_and_lead_to_their_pictures(written):
    # The keys that labelme/_label_file.py knows, in a file and in a shape.
    document = json.loads((written / "labelme" / "a.json").read_text(encoding="utf-8"))
    assert document.keys() == {
        *("version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth")
    }
    shape = document["shapes"][0]
    assert shape.keys() - {"score"} == {
        *("label", "points", "shape_type", "flags", "description", "group_id", "mask")
    }
    assert (shape["shape_type"], shape["points"]) == ("rectangle", [[10, 20], [60.5, 80]])
    assert shape["score"] == pytest.approx(0.9)
    assert (document["imageWidth"], document["imageHeight"]) == SIZE
    assert Image.open(written / "labelme" / document["imagePath"]).size == SIZE
    assert json.loads((written / "labelme" / "b.json").read_text())["shapes"] == []


def test_csv_has_a_header_and_one_row_per_detection(written, tmp_path):
    with (written / "detections.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [each["name"] for each in rows] == [NAMES[1], NAMES[0], NAMES[2]]
    assert {each["file"] for each in rows} == {str(tmp_path / "in" / "a.png")}
    assert [float(rows[0][side]) for side in ("x1", "y1", "x2", "y2")] == [10, 20, 60.5, 80]


def test_crops_hold_what_is_inside_each_box(written, tmp_path):
    results = {tmp_path / "in" / "a.png": MANY, tmp_path / "in" / "b.png": NOTHING}
    write(written, results, ("crops",))
    made = {each.parent.name: Image.open(each).size for each in (written / "crops").rglob("*.jpg")}
    assert made == {
        "square": (200, 100),
        "a, _quoted__name": (51, 60),
        "größe 像 _\U0001f600_ -": (8, 8),
    }


def test_classes_whose_safe_names_are_equal_have_folders_of_their_own(tmp_path):
    two = Detections(
        np.array([[0, 0, 9, 9], [0, 0, 5, 5]], np.float32),
        np.array([0.9, 0.8], np.float32),
        np.array([0, 1]),
        ("a/b", "a:b"),
        (1, 2),
    )
    write(tmp_path / "out", {save(tmp_path / "x.png"): two}, ("crops",))
    made = sorted(str(each.relative_to(tmp_path / "out")) for each in tmp_path.rglob("*.jpg"))
    assert made == ["crops/a_b-2/x_2.jpg", "crops/a_b/x_1.jpg"]


def test_without_class_names_the_categories_are_those_that_were_found(tmp_path):
    picture = save(tmp_path / "x.png")
    out = write(tmp_path / "out", {picture: MANY}, classes=())
    categories = json.loads((out / "detections.coco.json").read_text())["categories"]
    assert [each["id"] for each in categories] == list(IDS)
    unnamed = replace(NOTHING, names=(), category_ids=())
    empty = write(tmp_path / "none", {picture: unnamed}, classes=())
    assert json.loads((empty / "detections.coco-results.json").read_text()) == []
    assert yaml.safe_load((empty / "yolo" / "data.yaml").read_text())["names"] == {}


def test_pictures_whose_names_are_not_utf_8_are_found_again_from_every_format(tmp_path):
    folder = os.fsencode(tmp_path / "in")
    picture = Path(os.fsdecode(folder + b"/caf\xe9.png"))
    out = write(tmp_path / "out", {save(picture): MANY}, (*FORMATS, "crops"))
    assert (out / "yolo" / "labels" / picture.name).with_suffix(".txt").is_file()
    (labelme,) = (out / "labelme").iterdir()
    path = json.loads(labelme.read_text(encoding="utf-8"))["imagePath"]
    assert os.fsencode(path).endswith(b"in/caf\xe9.png")
    coco = json.loads((out / "detections.coco.json").read_text(encoding="utf-8"))
    assert os.fsencode(coco["images"][0]["file_name"]) == b"caf\xe9.png"
    assert "caf" in (out / "detections.csv").read_text(encoding="utf-8")


def test_a_picture_of_the_longest_name_is_written_in_every_format(tmp_path):
    picture = save(tmp_path / "in" / ("像" * 83 + ".png"))
    out = write(tmp_path / "out", {picture: MANY}, (*FORMATS, "crops"))
    assert len(list((out / "crops").rglob("*.jpg"))) == 3


def test_results_keep_the_folders_of_their_pictures(tmp_path):
    pictures = [save(tmp_path / "in" / name) for name in ("a/1.png", "b/1.png")]
    out = write(tmp_path / "out", dict.fromkeys(pictures, MANY), (*FORMATS, "crops"))
    for folder in ("a", "b"):
        assert (out / "yolo" / "labels" / folder / "1.txt").is_file()
        document = json.loads((out / "labelme" / folder / "1.json").read_text())
        way = (out / "labelme" / folder / document["imagePath"]).resolve()
        assert way == (tmp_path / "in" / folder / "1.png").resolve()
        assert (out / "crops" / "square" / folder / "1_2.jpg").is_file()
    coco = json.loads((out / "detections.coco.json").read_text())
    assert [each["file_name"] for each in coco["images"]] == ["a/1.png", "b/1.png"]
    assert [each["id"] for each in coco["annotations"]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ModelFileError("NaN")])
def test_finished_results_are_delivered_when_the_work_stops(tmp_path, stop):
    picture = save(tmp_path / "x.png")
    out = tmp_path / "out"
    out.mkdir()

    def interrupted():
        with writing(FORMATS, out, CLASSES) as add:
            add(Labeled(picture, places_of([picture])[picture], SIZE, MANY))
            raise stop

    with pytest.raises(stop if isinstance(stop, type) else type(stop)):
        interrupted()
    assert len(json.loads((out / "detections.coco.json").read_text())["annotations"]) == 3
    assert len(json.loads((out / "detections.coco-results.json").read_text())) == 3
    assert (out / "yolo" / "data.yaml").is_file()
    assert not list(out.glob(".effdet-*"))


def test_a_failed_write_leaves_the_file_of_an_earlier_run(tmp_path):
    (tmp_path / "detections.csv").write_text("of an earlier run")

    def failing():
        with writing(("csv",), tmp_path, CLASSES):
            raise OSError("of the disk")

    with pytest.raises(OSError, match="disk"):
        failing()
    assert (tmp_path / "detections.csv").read_text() == "of an earlier run"


def test_labels_of_an_earlier_run_are_never_replaced(written, tmp_path):
    for form in ("yolo", "yolo-conf", "labelme"):
        with pytest.raises(UsageError, match=f"{form}' already has files"):
            require_free((form,), written)
    require_free(("json", "csv", "coco"), written)
    (tmp_path / "new" / "yolo").mkdir(parents=True)
    require_free(FORMATS, tmp_path / "new")


def test_a_repeated_format_counts_once_and_an_unknown_one_is_named():
    assert read_formats("json, COCO,json") == ("json", "coco")
    with pytest.raises(UnknownNameError, match="no format named 'cocoo'") as error:
        read_formats("json,cocoo")
    assert error.value.nearest == ("coco",)
