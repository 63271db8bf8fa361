from __future__ import annotations

import pytest

from effdet_deploy.parity.tolerances import TOLERANCES, tolerance_for


def test_a_budget_that_was_met_decides_instead_of_matched_boxes():
    assert tolerance_for("int8", has_budget=True).matched is None
    assert tolerance_for("int8", has_budget=False) == TOLERANCES["int8"]


@pytest.mark.parametrize(
    ("precision", "matched", "iou"),
    [("fp32", 0.999, 0.99), ("fp16", 0.99, 0.95), ("int8", 0.90, 0.90)],
)
def test_the_tolerances_of_every_precision_are_those_of_the_design(precision, matched, iou):
    asked = TOLERANCES[precision]
    assert (asked.matched, asked.iou) == (matched, iou)
