from __future__ import annotations

import html
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from effdet_deploy.detection.pictures import Pictures
from effdet_deploy.diagnosis.comparing_files import SideBySide, examine
from effdet_deploy.diagnosis.locating import LayerParity, LayerReport
from effdet_deploy.parity.comparison import compare_all
from effdet_deploy.parity.metrics import tensor_errors
from effdet_deploy.parity.side import RuntimeSide, side_of
from effdet_deploy.reports.comparison import render_comparison
from effdet_deploy.reports.gallery import worst_first
from effdet_deploy.reports.html import to_html
from effdet_deploy.synthetic import structured_pictures
from tests.parity.stand_ins import StandInRuntime, detector_spec, finished, heads_of, with_noise

SOURCES = tuple(structured_pictures(3, 200, 260, seed=1))
NAMES = ("a.jpg", "<b> & 'c'.jpg", "d.jpg")
PICTURES = Pictures(NAMES, SOURCES)
VOID = {"meta", "img", "br"}


def side(run_heads=heads_of, **options) -> RuntimeSide:
    spec = detector_spec(**options)
    return side_of(StandInRuntime(spec, finished(run_heads, spec)))


def layer_report() -> LayerReport:
    signal = np.linspace(-1, 1, 64)
    layers = tuple(
        LayerParity(f"{part}.{index}.conv", f"{part}.{index}", tensor_errors(signal, signal + off))
        for part in ("backbone", "fpn")
        for index, off in enumerate((0.0, 1e-6, 0.1))
    )
    return LayerReport(layers, 60.0, layers[2], "is the reference's times 2")


def result_of(*candidates: RuntimeSide, layers: LayerReport | None = None) -> SideBySide:
    reference = side()
    named = {f"dir/model-{index}.onnx": each for index, each in enumerate(candidates)}
    compared = compare_all(named, reference, SOURCES)
    examined = tuple(
        examine(each, (candidate, reference), PICTURES, layers=layers)
        for each, candidate in zip(compared, candidates, strict=True)
    )
    return SideBySide("dir/reference.onnx", examined, PICTURES)


@pytest.fixture(scope="module")
def page() -> str:
    return to_html(result_of(side(), side(with_noise(0.05)), layers=layer_report()))


class Balance(HTMLParser):
    """Checks that every element that is opened is closed again, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed(page):
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert {"svg", "table", "figure", "h1"} <= set(parser.seen)


def test_the_page_needs_nothing_from_elsewhere(page):
    assert "://" not in page
    assert "<script" not in page
    assert "<link" not in page
    assert "@import" not in page
    links = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert links
    assert all(each.startswith(("data:image/jpeg;base64,", "#")) for each in links)


def test_every_candidate_has_its_verdict_and_its_pictures(page):
    assert '<span class="badge passed">passed</span>' in page
    assert '<span class="badge failed">failed</span>' in page
    assert page.count("<figure>") == 2 * len(SOURCES)


def test_names_are_escaped(page):
    assert "&lt;b&gt; &amp; &#39;c&#39;.jpg" in page
    assert "<b> &" not in page


def test_the_first_layer_that_differs_is_marked_on_the_chart_and_in_the_table(page):
    assert re.search(r"<text[^>]*var\(--missed\)[^>]*>backbone.2.conv</text>", page)
    assert re.search(r'<tr class="failed">\s*<td class="code"><code>backbone.2.conv</code>', page)
    assert "<title>fpn.1.conv: 115.4 dB</title>" in page
    assert "The first layer that differs is backbone.2.conv" in page


def test_the_page_says_what_the_terminal_says():
    result = result_of(side(), side(with_noise(0.05)), layers=layer_report())
    console = Console(file=io.StringIO(), width=1000)
    console.print(render_comparison(result))
    said = " ".join(" ".join(console.file.getvalue().split()).split("[✗]"))
    text = html.unescape(re.sub(r"<[^>]*>", " ", to_html(result))).lower()
    for each in re.findall(r"[a-z0-9.]{4,}", said.lower()):
        assert each in text, each


def test_every_part_of_a_drawing_that_is_referred_to_exists(page):
    ids = set(re.findall(r'id="([^"]*)"', page))
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', page)) <= ids


def test_pictures_come_worst_first():
    seen = iter(range(100))

    def wrong_on_the_second(batch):
        heads = heads_of(batch)
        return with_noise(0.5)(batch) if next(seen) == 1 else heads

    (each,) = result_of(side(wrong_on_the_second)).examined
    assert worst_first(each)[0].index == 1


def test_numbers_that_are_not_finite_make_a_page():
    def broken(batch):
        outputs = finished(heads_of, detector_spec())(batch)
        outputs["detection_scores"] = outputs["detection_scores"] * np.float32(np.nan)
        return outputs

    spec = detector_spec()
    page = to_html(result_of(side_of(StandInRuntime(spec, broken))))
    assert "badge failed" in page
    assert "NaN or infinite" in page


def test_nothing_detected_makes_a_page_that_says_so():
    page = to_html(result_of(side(score_threshold=1.0)))
    assert "nothing was detected on either side" in page
