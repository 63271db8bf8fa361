"""`detect` on pictures: what it writes, what it leaves alone, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effdet_deploy.artifact.spec import BatchSpec, ClassSpec
from effdet_deploy.cli import main
from tests.onnx_models import SIDE, detector_spec, write_tiny


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(path, level: int = 255, size: tuple[int, int] = (SIDE, SIDE)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), level, np.uint8)).save(path)
    return path


def test_one_picture_gives_an_annotated_copy_json_and_a_table(run_tool, model, picture, here):
    done = run_tool("detect", model, picture, "--output", "out")
    assert done.returncode == 0, done.stderr
    annotated = np.asarray(Image.open(here / "out" / "white.png"))
    assert annotated.shape == (SIDE, SIDE, 3)
    assert (annotated != 255).any()
    document = json.loads((here / "out" / "detections.json").read_text())
    assert document["backend"] == "onnxruntime"
    assert [each["name"] for each in document["images"][0]["detections"]] == [
        "square",
        "ring",
        "circle",
        "square",
    ]
    assert "circle" in done.stdout
    assert "Found 4 detections in 1 picture;" in done.stderr
    assert "Found" not in done.stdout


def test_a_picture_that_is_named_by_its_file_its_folder_and_a_glob_is_read_once(
    model, here, capsys
):
    save(here / "in" / "a.png")
    save(here / "in" / "deep" / "b.jpg")
    (here / "in" / "notes.txt").write_text("no picture")
    save(here / "more" / "c.png")
    code = main(
        ["detect", str(model), "in", "in/a.png", "more/*.png", "-o", "out", "--json", "r.json"]
    )
    assert code == 0
    names = [each["file"] for each in json.loads((here / "r.json").read_text())["images"]]
    assert names == ["in/a.png", "in/deep/b.jpg", "more/c.png"]
    assert sorted(each.name for each in (here / "out").iterdir()) == ["a.png", "b.jpg", "c.png"]
    assert "c.png" in capsys.readouterr().out


def test_pictures_of_one_name_do_not_overwrite_each_other(model, here):
    save(here / "a" / "1.png")
    save(here / "b" / "1.png", level=128)
    assert main(["detect", str(model), "a", "b", "-o", "out"]) == 0
    document = json.loads((here / "out" / "detections.json").read_text())
    assert [each["annotated"] for each in document["images"]] == ["out/1.png", "out/1-2.png"]


def test_names_that_differ_only_in_case_give_two_copies(model, here):
    # On macOS and Windows, the two names mean one file.
    save(here / "a" / "X.png")
    save(here / "b" / "x.png", level=128)
    assert main(["detect", str(model), "a", "b", "-o", "out"]) == 0
    assert {each.name for each in (here / "out").glob("*.png")} == {"X.png", "x-2.png"}


@pytest.mark.parametrize("output", [".", "pictures/.."])
def test_it_refuses_to_replace_a_picture_that_was_given(model, picture, here, output, capsys):
    (here / "pictures").mkdir()
    before = picture.read_bytes()
    assert main(["detect", str(model), picture.name, "--output", output]) == 2
    assert "would replace the picture" in capsys.readouterr().err
    assert picture.read_bytes() == before


def test_a_second_run_leaves_out_what_the_first_one_wrote(model, here):
    """The output folder lies inside the folder of pictures."""
    save(here / "in" / "a.png")
    for _ in range(2):
        assert main(["detect", str(model), "in", "-o", "in/out"]) == 0
    document = json.loads((here / "in" / "out" / "detections.json").read_text())
    assert [each["file"] for each in document["images"]] == ["in/a.png"]


def test_one_unreadable_picture_is_reported_and_the_rest_is_delivered(model, here, capsys):
    save(here / "in" / "a.png")
    (here / "in" / "b.png").write_bytes(b"no picture")
    save(here / "in" / "c.png")
    assert main(["detect", str(model), "in", "-o", "out"]) == 5
    shown = capsys.readouterr()
    assert "1 of 3 pictures could not be read" in shown.err
    assert "b.png" in shown.err
    document = json.loads((here / "out" / "detections.json").read_text())
    assert ["error" in each for each in document["images"]] == [False, True, False]
    assert sorted(each.name for each in (here / "out").glob("*.png")) == ["a.png", "c.png"]


def test_an_unreadable_picture_in_a_batch_shifts_no_result(here, capsys):
    model = write_tiny(here / "batch.onnx", detector_spec(batch=BatchSpec(1, 2, 4)))
    for index in range(6):
        save(here / "in" / f"{index}.png", level=255 - 20 * index)
    (here / "in" / "1.png").write_bytes(b"")
    assert main(["detect", str(model), "in", "-o", "out"]) == 5
    capsys.readouterr()
    for index, each in enumerate(json.loads((here / "out/detections.json").read_text())["images"]):
        if index == 1:
            assert "error" in each
            continue
        assert each["detections"][0]["score"] == pytest.approx((255 - 20 * index) / 255, abs=1e-3)


@pytest.mark.parametrize("source", ["absent.jpg", "empty", "*.nothing"])
def test_an_input_that_names_no_picture_is_a_bad_input(model, here, source, capsys):
    (here / "empty").mkdir()
    assert main(["detect", str(model), source]) == 5
    assert f"no picture at '{source}'" in capsys.readouterr().err
    assert not (here / "detections").exists()


def test_a_bad_model_is_refused_before_any_picture_is_read(here, picture, capsys):
    (here / "bad.onnx").write_bytes(b"no model")
    assert main(["detect", "bad.onnx", str(picture), "-o", "out"]) == 5
    assert "bad.onnx" in capsys.readouterr().err


def test_paths_with_spaces_semicolons_and_unicode_work(model, here):
    odd = here / "a dir; $(x) ünï"
    shutil.copy(save(here / "p.png"), save(odd / "ein bild;.png"))
    renamed = odd / "模型.onnx"
    renamed.write_bytes(model.read_bytes())
    assert (
        main(["detect", str(renamed), str(odd / "ein bild;.png"), "-o", str(odd / "out put")]) == 0
    )
    assert (odd / "out put" / "ein bild;.png").is_file()


def test_the_threshold_and_the_json_file_are_honored(model, picture, here):
    arguments = [
        "--score-threshold",
        "0.7",
        "--json",
        "result.json",
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    assert main(["detect", str(model), str(picture), "-o", "out", *arguments]) == 0
    document = json.loads((here / "result.json").read_text())
    assert len(document["images"][0]["detections"]) == 2
    assert not (here / "out" / "detections.json").exists()


def test_a_model_whose_scores_all_lie_above_the_default_threshold_runs(here, picture):
    """The command's default threshold would be refused as too low, so the model's own is used."""
    model = write_tiny(here / "strict.onnx", detector_spec(score_threshold=0.5))
    assert main(["detect", str(model), str(picture), "-o", "out"]) == 0
    assert json.loads((here / "out" / "detections.json").read_text())["score_threshold"] == 0.5


def test_a_threshold_below_that_of_the_model_is_refused_and_leaves_nothing_behind(
    here, model, picture
):
    asked = ["--score-threshold", "0.001"]
    assert main(["detect", str(model), str(picture), "-o", "out", *asked]) == 2
    assert not (here / "out").exists()


def test_a_device_that_is_absent_is_exit_4_and_leaves_nothing_behind(model, picture, here, capsys):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA: would show what one without CUDA answers")
    assert main(["detect", str(model), str(picture), "--device", "cuda", "-o", "out"]) == 4
    assert "onnxruntime-gpu" in capsys.readouterr().err
    assert not (here / "out").exists()


def test_an_output_that_is_a_file_is_a_usage_error(model, picture, here, capsys):
    (here / "out").write_text("mine")
    for output in ("out", "out/deeper"):
        assert main(["detect", str(model), str(picture), "-o", output]) == 2
        assert "is not a directory" in capsys.readouterr().err
    assert (here / "out").read_text() == "mine"


def test_the_json_file_may_stand_in_the_directory_that_is_made(model, picture, here):
    arguments = ["detect", str(model), str(picture), "-o", "out", "--json", "out/r.json"]
    assert main(arguments) == 0
    assert (here / "out" / "r.json").is_file()


def test_a_picture_of_the_longest_name_is_annotated(model, picture, here):
    name = "像" * 83 + ".png"
    picture.rename(here / name)
    assert main(["detect", str(model), str(here / name), "-o", "out"]) == 0
    assert (here / "out" / name).is_file()


def test_an_unwritable_json_target_leaves_nothing_behind(model, picture, here, capsys):
    arguments = ["detect", str(model), str(picture), "-o", "out", "--json", "absent/r.json"]
    assert main(arguments) == 2
    assert "does not exist" in capsys.readouterr().err
    assert not (here / "out").exists()


def test_an_animation_is_saved_as_a_still(model, here):
    Image.new("RGB", (50, 50), "white").save(here / "x.gif")
    assert main(["detect", str(model), "x.gif", "-o", "out"]) == 0
    assert (here / "out" / "x.png").is_file()


def test_a_users_own_picture_in_the_place_of_a_copy_is_not_replaced(model, here, capsys):
    Image.new("RGB", (50, 50), "white").save(here / "x.gif")
    mine = save(here / "photos" / "x.png", level=77)
    before = mine.read_bytes()
    assert main(["detect", str(model), "x.gif", "-o", "photos"]) == 2
    assert "copy of 'x.gif' would replace the picture 'photos/x.png'" in capsys.readouterr().err
    assert mine.read_bytes() == before
    (here / "photos" / "x.png").write_text("no picture, and mine")
    assert main(["detect", str(model), "x.gif", "-o", "photos"]) == 2


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.jpeg", "a.webp", "a.bmp", "a.gif", "a.tif"])
def test_a_copy_of_an_earlier_run_is_replaced(model, here, name):
    save(here / "in" / name)
    for _ in range(2):
        assert main(["detect", str(model), "in", "-o", "out"]) == 0
    (copy,) = (each for each in (here / "out").iterdir() if each.suffix != ".json")
    assert Image.open(copy).size == (SIDE, SIDE)


def test_a_pattern_without_a_suffix_finds_only_pictures_and_folders_of_pictures(model, here):
    for name in ("day-1/a.png", "day-2/b.jpe", "day-3.png"):
        save(here / name) if not name.endswith("jpe") else shutil.copy(
            save(here / "x.jpg"), save(here / "day-2" / "c.png").with_name("b.jpe")
        )
    (here / "day-notes.txt").write_text("no picture")
    assert main(["detect", str(model), "day-*", "-o", "out"]) == 0
    document = json.loads((here / "out" / "detections.json").read_text())
    found = [each["file"] for each in document["images"]]
    assert found == ["day-1/a.png", "day-2/b.jpe", "day-2/c.png", "day-3.png"]


@pytest.mark.parametrize("ascii_only", [False, True])
def test_files_whose_names_are_not_utf_8_are_read_and_written(
    model, here, run_tool, monkeypatch, ascii_only
):
    data = save(here / "p.png").read_bytes()
    (here / "in").mkdir()
    named = os.fsencode(here / "in")
    for name in (b"caf\xe9.png", "größe.png".encode()):
        Path(os.fsdecode(named + b"/" + name)).write_bytes(data)
    Path(os.fsdecode(named + b"/bad\xff.png")).write_bytes(b"no picture")
    if ascii_only:
        for key, value in (("LC_ALL", "C"), ("PYTHONUTF8", "0"), ("PYTHONCOERCECLOCALE", "0")):
            monkeypatch.setenv(key, value)
    done = run_tool("detect", model, "in", "-o", "out")
    assert done.returncode == 5
    assert "1 of 3 pictures could not be read" in done.stderr
    document = json.loads((here / "out" / "detections.json").read_text(encoding="utf-8"))
    assert ["error" in each for each in document["images"]].count(True) == 1
    copies = sorted(os.fsencode(each.name) for each in (here / "out").iterdir())
    assert copies == [b"caf\xe9.png", b"detections.json", "größe.png".encode()]


def test_fast_decode_draws_smaller_copies_and_writes_boxes_of_whole_pictures(model, here):
    save(here / "in" / "a.jpg", size=(4 * SIDE, 4 * SIDE))
    documents = []
    for index, more in enumerate(([], ["--fast-decode"])):
        command = ["detect", str(model), "in", "-o", f"out{index}", "--save-crops", *more]
        assert main(command) == 0
        documents.append(json.loads((here / f"out{index}" / "detections.json").read_text()))
    whole, fast = (document["images"][0] for document in documents)
    assert whole["detections"] == fast["detections"]
    assert (fast["width"], fast["height"]) == (4 * SIDE, 4 * SIDE)
    (x1, y1, x2, y2) = (round(each / 4) for each in fast["detections"][0]["box"])
    assert Image.open(here / "out0" / "a.jpg").size == (4 * SIDE, 4 * SIDE)
    small = np.asarray(Image.open(here / "out1" / "a.jpg").convert("L"))
    assert small.shape == (SIDE, SIDE)
    # The left side of the box is drawn there, in a white picture.
    assert small[(y1 + y2) // 2, x1 : x1 + 2].max() < 240
    assert small[(y1 + y2) // 2, (x1 + x2) // 2] > 240
    # The crops show the same boxes, cut from the smaller picture.
    crops = [sorted((here / f"out{index}" / "crops").rglob("*.jpg")) for index in (0, 1)]
    assert [each.name for each in crops[0]] == [each.name for each in crops[1]]
    for large, reduced in zip(*crops, strict=True):
        sides = zip(Image.open(large).size, Image.open(reduced).size, strict=True)
        assert all(abs(side - 4 * less) <= 4 for side, less in sides)


def rows(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["images"]


def test_one_run_writes_every_format_and_names_the_files(model, here, capsys):
    save(here / "in" / "a.png")
    (here / "in" / "b.png").write_bytes(b"no picture")
    save(here / "in" / "c.png", level=0)
    asked = ["--format", "json,coco,yolo,yolo-conf,csv,labelme", "--save-crops"]
    assert main(["detect", str(model), "in", "-o", "out", *asked]) == 5
    assert sorted(each.name for each in (here / "out").iterdir()) == [
        *("a.png", "c.png", "crops", "detections.coco-results.json", "detections.coco.json"),
        *("detections.csv", "detections.json", "labelme", "yolo", "yolo-conf"),
    ]
    said = capsys.readouterr().err
    assert "; annotated copies in out, JSON in out/detections.json, COCO in out/" in said
    assert "YOLO labels in out/yolo," in said
    coco = json.loads((here / "out" / "detections.coco.json").read_text())
    # A picture that cannot be read has no size: it is in the JSON alone.
    assert [each["file_name"] for each in coco["images"]] == ["a.png", "c.png"]
    assert [each["image_id"] for each in coco["annotations"]] == [1, 1, 1, 1]
    assert (here / "out" / "yolo" / "labels" / "c.txt").read_text() == ""
    assert len(list((here / "out" / "crops").rglob("*.jpg"))) == 4


def test_only_results_are_written_without_annotated_copies(model, here, capsys):
    save(here / "in" / "a.png")
    assert main(["detect", str(model), "in", "-o", "out", "--no-annotate", "--format", "csv"]) == 0
    assert [each.name for each in (here / "out").iterdir()] == ["detections.csv"]
    assert "4 detections in 1 picture; CSV in out/detections.csv." in capsys.readouterr().err
    (here / "in" / "b.png").write_bytes(b"no picture")
    assert main(["detect", str(model), "in", "-o", "out", "--no-annotate", "--format", "csv"]) == 5
    assert "All other pictures are done.\n" in capsys.readouterr().err
    asked = ["--no-annotate", "--format", "csv", "--json", "r.json"]
    assert main(["detect", str(model), "in/a.png", "-o", "out", *asked]) == 0
    assert "annotated" not in rows(here / "r.json")[0]


def test_labels_of_an_earlier_run_are_not_replaced(model, here, capsys):
    save(here / "in" / "a.png")
    arguments = ["detect", str(model), "in", "-o", "out", "--format", "labelme"]
    assert main(arguments) == 0
    mine = here / "out" / "labelme" / "a.json"
    mine.write_text("corrected by hand")
    assert main(arguments) == 2
    assert "'out/labelme' already has files" in capsys.readouterr().err
    assert mine.read_text() == "corrected by hand"


def test_a_picture_that_exif_turns_is_labeled_as_it_is_shown(model, here):
    mark = Image.Exif()
    mark[0x0112] = 6
    Image.fromarray(np.full((60, 120, 3), 255, np.uint8)).save(here / "t.jpg", exif=mark)
    assert main(["detect", str(model), "t.jpg", "-o", "out", "--format", "json,coco,labelme"]) == 0
    (shown,) = rows(here / "out" / "detections.json")
    assert (shown["width"], shown["height"]) == (60, 120)
    coco = json.loads((here / "out" / "detections.coco.json").read_text())
    assert (coco["images"][0]["width"], coco["images"][0]["height"]) == (60, 120)
    labelme = json.loads((here / "out" / "labelme" / "t.json").read_text())
    assert (labelme["imageWidth"], labelme["imageHeight"]) == (60, 120)
    for each in coco["annotations"]:
        x, y, width, height = each["bbox"]
        assert x + width <= 60
        assert y + height <= 120


def test_only_the_classes_that_are_named_are_shown_written_and_saved(model, picture, here):
    asked = ["--classes", "circle, ring", "--format", "json,coco", "--save-crops"]
    assert main(["detect", str(model), str(picture), "-o", "out", *asked]) == 0
    document = json.loads((here / "out" / "detections.json").read_text())
    assert [each["name"] for each in document["images"][0]["detections"]] == ["ring", "circle"]
    assert document["classes"] == ["circle", "ring"]
    coco = json.loads((here / "out" / "detections.coco.json").read_text())
    assert len(coco["annotations"]) == 2
    assert {each.parent.name for each in (here / "out").rglob("*.jpg")} == {"circle", "ring"}


def test_an_unknown_class_is_refused_with_the_nearest_name_and_leaves_nothing_behind(
    model, picture, here, capsys
):
    assert main(["detect", str(model), str(picture), "-o", "out", "--classes", "cirkle"]) == 2
    assert "no class named 'cirkle'.\nDid you mean circle?" in capsys.readouterr().err
    assert not (here / "out").exists()


def test_names_of_classes_may_hold_commas_and_quotes(here, picture):
    names = ("a, b", 'say "x"', "c")
    classes = tuple(ClassSpec(name, index) for index, name in enumerate(names))
    model = write_tiny(here / "odd.onnx", replace(detector_spec(), classes=classes))
    for asked, found in (("a, b", {names[0]}), ('"say ""x""",c', {names[1], "c"})):
        arguments = ["-o", "out", "--no-annotate", "--classes", asked]
        assert main(["detect", str(model), str(picture), *arguments]) == 0
        (row,) = rows(here / "out" / "detections.json")
        assert {each["name"] for each in row["detections"]} == found


def test_inputs_come_from_a_list_and_missing_files_are_errors_in_their_place(model, here, capsys):
    save(here / "in" / "a.png")
    save(here / "more" / "[b].png")
    (here / "list.txt").write_text("in\n\ngone.png\r\nmore/[b].png\n")
    assert main(["detect", str(model), "--from", "list.txt", "-o", "out"]) == 5
    found = rows(here / "out" / "detections.json")
    assert [each["file"] for each in found] == ["in/a.png", "gone.png", "more/[b].png"]
    assert "'gone.png' does not exist" in found[1]["error"]
    (here / "list.txt").write_text("in\n" + "x" * 5000)
    assert main(["detect", str(model), "--from", "list.txt", "-o", "out"]) == 5
    assert ["error" in each for each in rows(here / "out" / "detections.json")] == [False, True]
    (here / "list.txt").write_text("\n")
    assert main(["detect", str(model), "--from", "list.txt"]) == 5
    assert "list.txt' is empty" in capsys.readouterr().err
    assert main(["detect", str(model), "--from", "absent.txt"]) == 5
    assert main(["detect", str(model)]) == 2
    assert "No pictures were named." in capsys.readouterr().err


def test_inputs_come_from_standard_input_as_find_print0_gives_them(run_tool, model, here):
    save(here / "in" / "two\nlines.png")
    done = run_tool("detect", model, "--from", "-", "-o", "out", input="in/two\nlines.png\0")
    assert done.returncode == 0, done.stderr
    assert rows(here / "out" / "detections.json")[0]["file"] == "in/two\nlines.png"


def test_finished_pictures_are_written_when_the_work_is_interrupted(
    model, here, monkeypatch, capsys
):
    for name in ("a.png", "b.png", "c.png"):
        save(here / "in" / name)
    from effdet_deploy.detection import formats

    add = formats.Csv.add

    def interrupted(self, picture):
        if picture.place.stem == "c":
            raise KeyboardInterrupt
        add(self, picture)

    monkeypatch.setattr(formats.Csv, "add", interrupted)
    asked = ["--format", "json,csv,coco", "--no-annotate"]
    assert main(["detect", str(model), "in", "-o", "out", *asked]) == 130
    document = json.loads((here / "out" / "detections.json").read_text())
    assert document["stopped"] is True
    assert [each["file"] for each in document["images"]] == ["in/a.png", "in/b.png"]
    assert len((here / "out" / "detections.csv").read_text().splitlines()) == 1 + 8
    assert (here / "out" / "detections.coco.json").is_file()


def test_an_unknown_format_is_refused_before_anything_is_read(here, capsys):
    assert main(["detect", "absent.onnx", "x.png", "--format", "cocoo"]) == 2
    assert "no format named 'cocoo'.\nDid you mean coco" in capsys.readouterr().err
