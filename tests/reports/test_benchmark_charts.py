from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from effdet_deploy.reports.benchmark_charts import (
    Mark,
    Series,
    bar_chart,
    line_chart,
    point_chart,
    share_chart,
)

SVG = "{http://www.w3.org/2000/svg}"


def parsed(text):
    """Read a chart as a browser does that opens the file."""
    root = ET.fromstring(text)
    assert root.tag == f"{SVG}svg"
    return root


def texts(root):
    return [each.text for each in root.iter(f"{SVG}text")]


def test_a_longer_bar_is_a_larger_value_and_both_are_written():
    root = parsed(bar_chart("Times", "ms", [Mark("slow & old", 200.0), Mark("ours", 40, 0, True)]))
    bars = [each for each in root.iter(f"{SVG}rect") if each.get("x")]
    widths = [float(each.get("width")) for each in bars]
    assert widths[0] == pytest.approx(5 * widths[1], abs=0.5)
    assert bars[0].get("fill") != bars[1].get("fill")
    assert {"slow & old", "ours", "200", "40"} <= set(texts(root))


def test_a_line_has_a_point_for_each_value_and_a_name():
    lines = [Series("one", ((1, 10.0), (8, 40.0))), Series("two", ((1, 20.0), (8, 30.0)))]
    root = parsed(line_chart("Throughput", "batch", "images a second", lines))
    assert len(list(root.iter(f"{SVG}circle"))) == 4
    assert {"one", "two", "1", "8", "batch"} <= set(texts(root))


def test_a_higher_value_of_a_line_stands_higher():
    root = parsed(line_chart("", "", "", [Series("one", ((1, 10.0), (2, 40.0)))]))
    low, high = (float(each.get("cy")) for each in root.iter(f"{SVG}circle"))
    assert high < low


@pytest.mark.parametrize("values", [(34.3, 34.1), (34.3, 34.3), (0.0, 0.0)])
def test_every_point_lies_inside_the_drawing(values):
    marks = [Mark(str(x), x, y) for x, y in zip((12.0, 180.0), values, strict=True)]
    root = parsed(point_chart("Accuracy", "ms", "mAP", marks))
    width, height = map(float, root.get("viewBox").split()[2:])
    for each in root.iter(f"{SVG}circle"):
        assert 0 < float(each.get("cx")) < width
        assert 0 < float(each.get("cy")) < height


def test_the_parts_of_a_row_follow_each_other_without_a_gap():
    rows = {"A": {"backbone": 20.0, "heads": 5.0}, "B": {"backbone": 10.0, "nms": 1.0}}
    root = parsed(share_chart("Where the time goes", rows, "ms"))
    parts = [each for each in root.iter(f"{SVG}rect") if each.find(f"{SVG}title") is not None]
    first, second = parts[:2]
    end = float(first.get("x")) + float(first.get("width"))
    assert float(second.get("x")) == pytest.approx(end, abs=0.11)
    assert {"A", "B", "backbone", "heads", "nms", "25", "11"} <= set(texts(root))


def test_a_chart_is_the_same_every_time():
    bars = [Mark("one", 1.0), Mark("two", 2.0)]
    assert bar_chart("t", "u", bars) == bar_chart("t", "u", bars)
