"""Class names of any script are drawn, by a font that has their letters, and never as squares."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from effdet_deploy.artifact.spec import ClassSpec
from effdet_deploy.cli import main
from effdet_deploy.detection import fonts
from effdet_deploy.detection.fonts import Lettering, unwritten
from effdet_deploy.errors import DataError
from tests.detection.test_detections import detections
from tests.onnx_models import detector_spec, write_tiny

SIZE = 20


@pytest.fixture
def installed(monkeypatch):
    """Only Matplotlib's fonts are installed: DejaVu has Cyrillic letters and no Chinese ones."""
    matplotlib = pytest.importorskip("matplotlib")
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    with_folders(monkeypatch, folder)
    return folder


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """No font is installed."""
    with_folders(monkeypatch, tmp_path / "absent")


def with_folders(monkeypatch, *folders):
    monkeypatch.setattr(fonts, "font_folders", lambda: folders)
    for each in (fonts._installed, fonts._installed_with):
        each.cache_clear()


@pytest.fixture(autouse=True)
def forgotten():
    """The caches must not keep a font for the next test."""
    yield
    for each in (fonts._installed, fonts._installed_with):
        each.cache_clear()


def test_pillows_own_font_is_used_where_it_has_all_letters(bare):
    lettering = Lettering(SIZE)
    assert lettering.runs("brown dog 90%") == [("brown dog 90%", lettering.main)]


def test_another_script_is_drawn_with_the_plainest_installed_font_that_has_it(installed):
    ((text, font),) = Lettering(SIZE).runs("кошка ear 90%")
    assert text == "кошка ear 90%"
    assert Path(font.path) == installed / "DejaVuSans.ttf"
    square = font.getmask("\U0010ffff")
    for letter in "кошка":
        assert bytes(font.getmask(letter)) != bytes(square)


def test_a_name_in_two_scripts_is_drawn_in_parts(installed):
    lettering = Lettering(SIZE)
    (russian, dejavu), (chinese, own) = lettering.runs("кот猫")
    assert (russian, Path(dejavu.path).name) == ("кот", "DejaVuSans.ttf")
    assert (chinese, own) == ("\\u732b", lettering.main)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("猫", "\\u732b"),
        ("\N{FULLWIDTH LATIN SMALL LETTER C}at", "cat"),
        ("\N{MATHEMATICAL SCRIPT CAPITAL X}", "X"),
        ("a\tb\nc", "a b c"),
        ("a\x1b[31m", "a\\x1b[31m"),
        ("\ud800", "\\ud800"),
        ("", ""),
    ],
)
def test_letters_that_no_font_has_are_simplified_or_escaped(bare, name, written):
    assert Lettering(SIZE).written(name).strip() == written


def test_names_that_cannot_be_drawn_as_they_are_can_be_listed(bare):
    assert unwritten(["cat", "猫", "a  b"]) == ["猫"]


def test_a_font_that_the_user_names_comes_first(bare, installed):
    chosen = installed / "DejaVuSerif.ttf"
    ((_, font),) = Lettering(SIZE, chosen).runs("cat")
    assert Path(font.path) == chosen


def test_a_file_that_is_not_a_font_is_refused(tmp_path):
    (tmp_path / "a.ttf").write_bytes(b"no font")
    for name in ("a.ttf", "absent.ttf"):
        with pytest.raises(DataError, match=name):
            Lettering(SIZE, tmp_path / name)


def test_damaged_fonts_among_the_installed_are_passed_over(monkeypatch, installed, tmp_path):
    (tmp_path / "a.ttf").write_bytes(b"no font")
    with_folders(monkeypatch, tmp_path, installed)
    assert Lettering(SIZE).written("кошка") == "кошка"


def test_every_name_is_drawn_on_the_picture(installed):
    picture = np.zeros((200, 200, 3), np.uint8)
    boxes = dataclasses.replace(detections(), names=("кот猫", "猫", "cat\n\ud800"))
    assert (np.asarray(boxes.draw(picture)) != np.asarray(detections().draw(picture))).any()
    assert (np.asarray(boxes.draw(picture, installed / "DejaVuSans.ttf")) != 0).any()


def test_a_pillow_without_freetype_escapes_all_but_ascii(bare, monkeypatch):
    def without(*_):
        raise ImportError

    monkeypatch.setattr(
        ImageFont, "load_default", lambda size=None: bitmap if not size else without()
    )
    fonts._opened.cache_clear()
    fonts._has.cache_clear()
    try:
        assert Lettering(SIZE).written("é 猫 a") == "e \\u732b a"
    finally:
        fonts._opened.cache_clear()
        fonts._has.cache_clear()


bitmap = ImageFont.load_default_imagefont()


def test_detect_says_which_names_had_to_be_escaped(bare, tmp_path, capsys):
    spec = dataclasses.replace(
        detector_spec(), classes=tuple(ClassSpec(name, 1) for name in ("猫", "狗", "cat"))
    )
    model = write_tiny(tmp_path / "model.onnx", spec)
    Image.new("RGB", (128, 128), "white").save(tmp_path / "a.png")
    asked = ["detect", str(model), str(tmp_path / "a.png"), "-o", str(tmp_path / "out")]
    assert main(asked) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "has all letters of 2 class names, such as '狗'; these names are escaped" in shown
    document = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {each["name"] for each in document["images"][0]["detections"]} == {"猫", "狗", "cat"}
    (tmp_path / "bad.ttf").write_bytes(b"no font")
    assert main([*asked, "--font", str(tmp_path / "bad.ttf")]) == 5
    assert "bad.ttf' cannot be used" in " ".join(capsys.readouterr().err.split())
