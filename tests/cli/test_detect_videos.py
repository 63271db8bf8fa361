"""``detect`` on videos: what is written, and which options and inputs do not go together."""

from __future__ import annotations

import json

import pytest

from effdet_deploy.cli import main
from tests.detection.clips import write_clip
from tests.onnx_models import write_tiny

pytest.importorskip("av")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "tiny.onnx")
    write_clip(tmp_path / "clip.mp4", 12)
    return tmp_path


def test_a_video_gives_lines_an_annotated_copy_and_a_row(here, capsys):
    """A line of JSON for every frame, and a row of the table for the video."""
    assert main(["detect", "tiny.onnx", "clip.mp4", "-o", "out", "--score-threshold", "0.1"]) == 0
    assert sorted(each.name for each in (here / "out").iterdir()) == [
        *("clip.jsonl", "clip.mp4", "detections.json")
    ]
    document = json.loads((here / "out" / "detections.json").read_text())
    (row,) = document["videos"]
    lines = (here / "out" / "clip.jsonl").read_text().splitlines()
    assert row["frames"] == row["decoded"] == len(lines) == 12
    assert document["score_threshold"] == 0.1
    said = capsys.readouterr()
    assert "12 of 12" in said.out
    assert "out/clip.mp4" in said.err


def test_classes_stride_and_no_annotate_limit_what_is_written(here):
    options = ["--classes", "square", "--stride", "5", "--no-annotate", "--json", "rows.json"]
    command = ["detect", "tiny.onnx", "clip.mp4", "-o", "out", "--score-threshold", "0.02"]
    assert main([*command, *options]) == 0
    lines = [json.loads(each) for each in (here / "out" / "clip.jsonl").read_text().splitlines()]
    assert [each["frame"] for each in lines] == [0, 5, 10]
    assert {found["name"] for each in lines for found in each["detections"]} == {"square"}
    assert [each.name for each in (here / "out").iterdir()] == ["clip.jsonl"]
    assert json.loads((here / "rows.json").read_text())["classes"] == ["square"]


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (["clip.mp4", "photo.png"], "either videos or pictures, but 'photo.png' is not a video"),
        (["clip.mp4", "--save-crops"], "--save-crops is for pictures, not for videos"),
        (["clip.mp4", "--format", "coco"], "--format is for pictures, not for videos"),
        (["clip.mp4", "--fast-decode"], "--fast-decode is for pictures, not for videos"),
        (["photo.png", "--stride", "2"], "--stride is for videos, not for pictures"),
        (["photo.png", "--max-fps", "2"], "--max-fps is for videos, not for pictures"),
        (["clip.mp4", "-o", "."], "would replace a video"),
        (["clip.mp4", "--max-fps", "-1"], "max_fps must be more than 0"),
        (["clip.mp4", "--max-fps", "0"], "max_fps must be more than 0"),
        (["clip.mp4", "--timeout", "0"], "timeout must be more than 0"),
    ],
)
def test_options_and_inputs_that_do_not_go_together_are_refused(here, capsys, options, cause):
    assert main(["detect", "tiny.onnx", *options]) == 2
    assert cause in " ".join(capsys.readouterr().err.split())


def test_a_missing_clip_and_a_silent_stream_end_with_codes_of_their_own(here, capsys):
    assert main(["detect", "tiny.onnx", "none.mp4"]) == 5
    assert "'none.mp4' does not exist" in capsys.readouterr().err
    assert main(["detect", "tiny.onnx", "rtsp://127.0.0.1:1/x", "--timeout", "1"]) == 4
    assert "does not send a video" in capsys.readouterr().err


def test_without_pyav_the_extra_is_named(here, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    assert main(["detect", "tiny.onnx", "clip.mp4"]) == 4
    assert "pip install 'effdet-deploy[video]'" in " ".join(capsys.readouterr().err.split())
