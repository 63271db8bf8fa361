"""Too few candidates (boxes that enter NMS) lose detections, which fill the rows of the outputs.

`compare` and an export then say so, and how many candidates are enough.
"""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from effdet_deploy.diagnosis.symptoms import find_causes
from effdet_deploy.errors import VerificationError
from effdet_deploy.exporters.delivery import deliver_artifact
from effdet_deploy.parity.comparison import compare_all
from effdet_deploy.reports.verification import render
from effdet_deploy.synthetic import structured_pictures
from tests.parity.stand_ins import StandInReference, StandInSide, detector_spec, finished, heads_of

FREE_ROWS = {"max_detections": 200, "score_threshold": 0.5}
"""With these options fewer boxes reach the threshold than there are rows."""
PICTURES = list(structured_pictures(2, 128, 128, seed=3))


def compared(candidates: int):
    """Compare a stand-in that has this many candidates with a reference that has 5000."""
    reference = StandInReference(
        detector_spec(candidates=5000, **FREE_ROWS | {"max_detections": 300})
    )
    spec = detector_spec(candidates=candidates, **FREE_ROWS)
    side = StandInSide(spec, heads_of, finished(heads_of, spec))
    (comparison,) = compare_all({"few": side}, reference, PICTURES)
    return comparison, find_causes(comparison, side, reference, PICTURES[0])


def said_of(comparison) -> str:
    """Return the report of a comparison as text."""
    console = Console(file=io.StringIO(), width=300)
    console.print(render(comparison.report))
    return console.file.getvalue()


def test_too_few_candidates_are_named_as_the_cause_with_a_number_that_is_enough():
    comparison, causes = compared(200)
    needed = comparison.report.reach.needed
    assert any(
        f"200 boxes enter the candidate's NMS, but it takes {needed} to find" in each
        and "--candidates 1000" in each
        for each in causes
    )
    assert "200 are too few (the score of the last candidate is 0." in said_of(comparison)
    assert "export with --candidates 1000" in said_of(comparison)


def test_enough_candidates_are_not_named_as_a_cause():
    comparison, causes = compared(1000)
    assert not any("candidates" in each for each in causes)
    needed = comparison.report.reach.needed
    said = f"candidates: {needed} of the 1000 give the same detections as 5000"
    assert said in said_of(comparison)


def test_an_export_that_loses_rows_says_how_many_candidates_are_enough(tmp_path):
    comparison, _ = compared(200)
    staged = tmp_path / "staged" / "model.onnx"
    staged.parent.mkdir()
    staged.write_bytes(b"a model")
    with pytest.raises(VerificationError, match="200 candidates enter NMS") as caught:
        deliver_artifact(staged, tmp_path / "model.onnx", comparison.candidate, comparison.report)
    assert "--candidates 1000" in caught.value.remedy
