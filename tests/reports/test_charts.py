from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from effdet_deploy.reports.charts import Mark, Series, bar_chart, line_chart
from effdet_deploy.reports.comparison_charts import log_histogram, score_scatter
from tests.reports.drawn import SVG, marks, parsed, texts


def test_a_larger_value_has_a_longer_bar_and_both_values_are_written():
    root = parsed(bar_chart("Times", "ms", [Mark("slow & old", 200.0), Mark("ours", 40, 0, True)]))
    (one, left, _, right, _), (other, start, _, end, _) = marks(root)
    assert (one, other) == ("slow & old: 200", "ours: 40")
    assert right - left == pytest.approx(5 * (end - start), abs=0.1)
    colors = {
        each.get("style")
        for each in root.iter(f"{SVG}path")
        if each.find(f"{SVG}title") is not None
    }
    assert len(colors) == 2
    assert {"slow & old", "ours", "200", "40"} <= texts(root)


def test_a_line_has_a_point_for_each_value_and_a_name():
    lines = [Series("one", ((1, 10.0), (8, 40.0))), Series("two", ((1, 20.0), (8, 30.0)))]
    root = parsed(line_chart("Throughput", "batch", "images a second", lines))
    assert len(marks(root)) == 4
    assert {"one", "two", "1", "8", "batch"} <= texts(root)


def test_a_higher_value_of_a_line_is_drawn_higher_and_x_values_are_evenly_spaced():
    points = ((1, 10.0), (2, 40.0), (8, 20.0))
    found = marks(parsed(line_chart("", "", "", [Series("one", points)])))
    (_, x1, y1), (_, x2, y2), (_, x3, y3) = found
    assert y2 < y3 < y1
    assert x2 - x1 == pytest.approx(x3 - x2)


def test_a_chart_is_the_same_every_time_whatever_matplotlib_is_set_to(tmp_path):
    (tmp_path / "matplotlibrc").write_text("axes.facecolor: red\nfont.size: 30\n")
    code = (
        "from effdet_deploy.reports.charts import *\n"
        "print(bar_chart('t', 'u', [Mark('one', 1.0), Mark('two', 2.0)]), end='')"
    )
    env = os.environ | {"PYTHONHASHSEED": "1", "MPLCONFIGDIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert done.stdout == bar_chart("t", "u", [Mark("one", 1.0), Mark("two", 2.0)])


def test_a_home_that_cannot_be_written_to_changes_nothing(tmp_path):
    (tmp_path / "home").write_text("a file")
    env = os.environ | {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": ""}
    env.pop("MPLCONFIGDIR", None)
    command = [sys.executable, "-c", "import effdet_deploy.reports.charts"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert done.stderr == ""


def test_a_chart_in_a_page_names_its_colors_and_no_address():
    chart = log_histogram(np.array([0.0, 1e-3, 2e-3]), "difference")
    assert "var(--accent)" in chart
    assert "#2f5fd0" not in chart
    assert "://" not in chart


def test_names_are_shown_as_text_and_not_as_formulas():
    root = parsed(bar_chart("a $x$ < b", "", [Mark("$y_1$ & <i>", 1.0)]))
    assert {"a $x$ < b", "$y_1$ & <i>"} <= texts(root)


def in_page(text):
    return parsed(text.replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ', 1))


def test_a_histogram_counts_every_value_and_zeros_separately():
    found = marks(in_page(log_histogram(np.array([0.0, 0.0, 1e-3, 2e-3, 1.0]), "difference")))
    assert found[0][0] == "2"
    assert sum(int(each[0]) for each in found) == 5
    heights = [bottom - top for _, _, top, _, bottom in found]
    assert heights[0] == max(heights)


def test_scores_that_only_one_side_has_are_at_its_axis():
    pairs = np.array([[0.5, 0.5]])
    root = in_page(score_scatter(pairs, np.array([0.75]), np.array([0.25])))
    (pair, missed, extra) = [
        (float(each.get("x")), float(each.get("y")))
        for each in root.iter(f"{SVG}use")
        if "both" in each.get("style")
        or "missed" in each.get("style")
        or "extra" in each.get("style")
    ]
    width, height = map(float, root.get("viewBox").split()[2:])
    assert missed[1] > pair[1] > 0.05 * height
    assert extra[0] < pair[0] < missed[0] < width
