"""`compare`: verdicts, exit codes and reports, and what is refused before any work."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image

from effdet_deploy.cli import main
from effdet_deploy.synthetic import structured_pictures
from tests.evaluation.sets import write_set
from tests.onnx_models import WEIGHTS, detector_spec, tiny_model, write_tiny
from tests.test_torch_free import EXTRAS, TOOL, run_without


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, pixels in enumerate(structured_pictures(3, 150, 200, seed=2)):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def write_weaker(path):
    """A detector whose second box has lost most of its score."""
    model = tiny_model()
    (weights,) = (each for each in model.graph.initializer if each.name == "weights")
    weights.raw_data = (WEIGHTS * np.float32([1, 0.01, 1, 1])).tobytes()
    path.write_bytes(model.SerializeToString())
    return path


def test_equal_artifacts_pass(tmp_path, model, pictures, capsys):
    same = write_tiny(tmp_path / "same.onnx")
    arguments = ["compare", str(same), "--reference", str(model), "--images", str(pictures)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "same.onnx passed" in shown
    assert "100.00%" in shown


def test_a_difference_is_exit_code_3_and_names_what_is_missed(tmp_path, model, pictures, capsys):
    weaker = write_weaker(tmp_path / "weaker.onnx")
    result = tmp_path / "result.json"
    arguments = ["compare", str(weaker), "--reference", str(model), "--images", str(pictures)]
    assert main([*arguments, "--json", str(result)]) == 3
    assert "weaker.onnx failed" in capsys.readouterr().out
    (candidate,) = json.loads(result.read_text())["candidates"]
    assert candidate["status"] == "failed"
    ring = next(each for each in candidate["breakdown"]["classes"] if each["name"] == "ring")
    assert ring["missed"] == 3


def test_several_candidates_stand_side_by_side(tmp_path, model, pictures, capsys):
    same = write_tiny(tmp_path / "same.onnx")
    weaker = write_weaker(tmp_path / "weaker.onnx")
    page = tmp_path / "report.html"
    arguments = ["compare", str(same), str(weaker), "--reference", str(model)]
    assert main([*arguments, "--images", str(pictures), "--html", str(page)]) == 3
    shown = capsys.readouterr().out
    assert "same.onnx" in shown
    assert "weaker.onnx" in shown
    assert page.read_text().count("<section>") == 2


def test_annotations_add_map_and_its_difference(tmp_path, model, capsys):
    annotations = write_set(tmp_path / "set", images=3)
    same = write_tiny(tmp_path / "same.onnx")
    result = tmp_path / "result.json"
    arguments = ["compare", str(same), "--reference", str(model), "--coco", str(annotations)]
    assert main([*arguments, "--json", str(result)]) == 0
    (candidate,) = json.loads(result.read_text())["candidates"]
    assert candidate["accuracy"]["candidate"] == candidate["accuracy"]["reference"]
    assert candidate["accuracy"]["difference"]["points"] == 0
    assert "+0.00" in capsys.readouterr().out


def test_nothing_detected_is_inconclusive_and_does_not_pass(tmp_path, capsys):
    black = tmp_path / "black"
    black.mkdir()
    Image.fromarray(np.zeros((128, 128, 3), np.uint8)).save(black / "0.png")
    blind = [
        write_tiny(tmp_path / f"{name}.onnx", detector_spec(max_detections=4)) for name in "ab"
    ]
    for path in blind:
        path.write_bytes(_without_detections().SerializeToString())
    assert (
        main(["compare", str(blind[0]), "--reference", str(blind[1]), "--images", str(black)]) == 3
    )
    assert "nothing was detected on either side" in capsys.readouterr().out


def _without_detections():
    model = tiny_model()
    (count,) = (each for each in model.graph.initializer if each.name == "count")
    count.raw_data = np.zeros(1, np.float32).tobytes()
    return model


def test_specs_that_ask_for_different_things_are_named(tmp_path, model, pictures, capsys):
    other = write_tiny(tmp_path / "other.onnx", detector_spec(iou_threshold=0.6))
    main(["compare", str(other), "--reference", str(model), "--images", str(pictures)])
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "The specs differ in output.iou_threshold: 0.6 in the candidate, 0.5 in the reference."
        in said
    )


def test_the_option_layers_is_refused_for_an_engine_before_anything_is_loaded(model, capsys):
    arguments = ["compare", "model.engine", "--reference", str(model), "--layers"]
    assert main(arguments) == 2
    assert (
        "--layers only works on ONNX files, but 'model.engine' is not an ONNX file"
        in capsys.readouterr().err
    )


def test_the_option_layers_is_refused_for_an_onnx_file_that_is_not_ours(tmp_path, model, capsys):
    same = write_tiny(tmp_path / "same.onnx")
    assert main(["compare", str(same), "--reference", str(model), "--layers"]) == 5
    assert "No node of 'same.onnx' is named after the module" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_refused_first(tmp_path, model, capsys):
    target = tmp_path / "absent" / "report.html"
    assert main(["compare", "absent.onnx", "--reference", str(model), "--html", str(target)]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_artifacts_are_compared_with_the_base_install(tmp_path, model, pictures):
    weaker = write_weaker(tmp_path / "weaker.onnx")
    arguments = ["compare", weaker, "--reference", model, "--images", pictures]
    done = run_without(EXTRAS, TOOL, *arguments, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "weaker.onnx failed" in done.stdout


@pytest.mark.parametrize(
    ("options", "extra"),
    [
        (["--reference", "best.pth"], "export"),
        (["--coco", "set.json"], "eval"),
        (["--html", "report.html"], "report"),
    ],
)
def test_an_option_that_needs_an_extra_names_it(tmp_path, model, options, extra):
    write_set(tmp_path / "set", images=1)
    (tmp_path / "set.json").write_bytes((tmp_path / "set" / "annotations.json").read_bytes())
    (tmp_path / "images").symlink_to(tmp_path / "set" / "images")
    options = options if "--reference" in options else [*options, "--reference", str(model)]
    done = run_without(EXTRAS, TOOL, "compare", model, *options, cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert f"effdet-deploy[{extra}]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_an_html_report_names_its_extra_before_any_work(tmp_path, capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    arguments = ["compare", "absent.onnx", "--reference", "absent.onnx"]
    assert main([*arguments, "--html", str(tmp_path / "report.html")]) == 4
    said = capsys.readouterr().err
    assert f"An HTML report needs the package '{package}'" in said
    assert "pip install 'effdet-deploy[report]'" in said


@pytest.mark.parametrize("option", ["--json", "--html"])
@pytest.mark.parametrize("suffix", ["", ".json"])
def test_no_file_that_is_read_is_overwritten(tmp_path, model, capsys, option, suffix):
    same = write_tiny(tmp_path / "same.onnx")
    target = f"{same}{suffix}"
    assert main(["compare", str(same), "--reference", str(model), option, target]) == 2
    assert "would replace" in capsys.readouterr().err


def test_the_json_holds_no_nan_and_no_infinity(tmp_path, pictures):
    """Python's writer would write NaN, which other readers of JSON refuse."""
    spec = detector_spec(nms="none")
    reference = write_tiny(tmp_path / "sound.onnx", spec)
    broken = tiny_model(spec)
    (logits,) = (each for each in broken.graph.initializer if each.name == "logits")
    logits.raw_data = np.full(tuple(logits.dims), np.nan, np.float32).tobytes()
    path = tmp_path / "nan.onnx"
    path.write_bytes(broken.SerializeToString())
    result = tmp_path / "result.json"
    arguments = ["compare", str(path), "--reference", str(reference), "--images", str(pictures)]
    assert main([*arguments, "--json", str(result)]) == 3

    def refuse(constant):
        pytest.fail(f"{constant} in JSON")

    (candidate,) = json.loads(result.read_text(), parse_constant=refuse)["candidates"]
    assert candidate["status"] == "failed"
    assert not any("red and blue" in cause for cause in candidate["causes"])
