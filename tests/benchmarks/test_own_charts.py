"""Charts of the benchmarks: points lie inside the drawing, parts of a row lie end to end."""

from __future__ import annotations

import pytest
from own_charts import point_chart, share_chart

from effdet_deploy.reports.charts import Mark
from tests.reports.drawn import marks, parsed, texts


@pytest.mark.parametrize("values", [(34.3, 34.1), (34.3, 34.3), (0.0, 0.0)])
def test_every_point_lies_inside_the_drawing(values):
    names = [Mark(str(x), x, y) for x, y in zip((12.0, 180.0), values, strict=True)]
    root = parsed(point_chart("Accuracy", "ms", "mAP", names))
    width, height = map(float, root.get("viewBox").split()[2:])
    assert len(marks(root)) == 2
    for _, x, y in marks(root):
        assert 0 < x < width
        assert 0 < y < height


def test_the_parts_of_a_row_follow_each_other_without_a_gap():
    rows = {"A": {"backbone": 20.0, "heads": 5.0}, "B": {"backbone": 10.0, "nms": 1.0}}
    root = parsed(share_chart("Where the time goes", rows, "ms"))
    places = {(each[0], round(each[2])): each for each in marks(root)}
    (first,) = (each for (tip, _), each in places.items() if tip == "backbone: 20")
    (second,) = (each for (tip, _), each in places.items() if tip == "heads: 5")
    assert second[1] == pytest.approx(first[3], abs=0.01)
    assert {"A", "B", "backbone", "heads", "nms", "25", "11"} <= texts(root)
