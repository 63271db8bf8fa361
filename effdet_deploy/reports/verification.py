"""The report of a verification: its findings, and a table of the raw outputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Group

from effdet_deploy.artifact.spec import enough_candidates
from effdet_deploy.reports.columns import Column, Finding, Table
from effdet_deploy.reports.text import grid, show

if TYPE_CHECKING:
    from rich.console import RenderableType

    from effdet_deploy.parity.metrics import TensorErrors
    from effdet_deploy.parity.verdict import (
        DetectionParity,
        OutputParity,
        ParityReport,
        ReachParity,
    )

_LISTED = 5
"""The most unpaired detections of a kind that are listed; the JSON has all of them."""


def decibels(errors: TensorErrors) -> str:
    """Return a signal-to-noise ratio as text; ``exact`` if there is no error."""
    if errors.snr_db == math.inf:
        return "exact"
    return f"{errors.snr_db:.1f}" if math.isfinite(errors.snr_db) else "-"


def cosine(errors: TensorErrors) -> str:
    """Return a cosine as text; ``-`` if nothing could be compared."""
    return f"{errors.cosine:.7f}" if math.isfinite(errors.cosine) else "-"


OUTPUTS: tuple[Column[OutputParity], ...] = (
    Column("output", lambda each: each.name, "code"),
    Column("largest", lambda each: f"{each.errors.largest:.2e}"),
    Column("mean", lambda each: f"{each.errors.mean:.2e}"),
    Column("cosine", lambda each: cosine(each.errors)),
    Column("SNR dB", lambda each: decibels(each.errors)),
    Column("passes at", lambda each: f"{each.errors.passing_tolerance:.1e}"),
)


def render(report: ParityReport, title: str = "verification") -> RenderableType:
    """Return ``report`` for a terminal; ``title`` in the first line names what was done."""
    outputs = [grid(Table(OUTPUTS, [report.outputs]), None)] if report.outputs else []
    return Group(show(head_findings(report, title)), *outputs, show(detection_findings(report)))


def head_findings(report: ParityReport, title: str) -> list[Finding]:
    """Return the verdict, and a finding per raw output."""
    sizes = " and ".join(map(str, report.batch_sizes)) or "-"
    where = f"{report.images} images, batch {sizes}"
    said = f"{title} {report.status} ({report.precision}; {where})"
    found = [Finding(said, report.status)]
    if report.computed_by:
        found.append(Finding(f"computed by {report.computed_by}", "detail"))
    if report.not_run:
        found.append(Finding(report.not_run, "cause"))
    return [*found, *map(_output_finding, report.outputs)]


def _output_finding(output: OutputParity) -> Finding:
    errors = output.errors
    if errors.mismatch:
        return Finding(f"{output.name}: {errors.mismatch}", "failed")
    if errors.non_finite_reference or errors.non_finite_candidate:
        said = (
            f"{output.name}: not finite in {errors.non_finite_reference} elements of the "
            f"reference and {errors.non_finite_candidate} of the candidate"
        )
        return Finding(said, "failed")
    text = f"{output.name}: largest error {errors.largest:.2e}"
    worst = output.worst_level
    if worst is not None:
        alone = output.fp16_snr_db
        costs = "" if alone is None else f" (FP16 alone: {alone:.1f} dB)"
        text = (
            f"{output.name}: {decibels(errors)} dB{costs}; apart from its FP16 weights it differs "
            f"by {worst.error:.1e} at level {worst.level}, allowed {worst.allowed:.1e}"
        )
        return Finding(text, output.status)
    if output.allowed is None:
        return Finding(f"{text} (measured, not judged)", output.status)
    text += f", allowed {output.allowed:.1e}"
    if output.own_error is not None:
        text += f" (the network's own float32 error is {output.own_error:.1e})"
    if output.status == "failed" and len(output.by_batch) > 1:
        parts = ", ".join(f"{error:.2e} at batch {size}" for size, error in output.by_batch)
        text += f"; {parts}"
    return Finding(text, output.status)


def detection_findings(report: ParityReport) -> list[Finding]:
    """Return the findings on detections, and on the chains of NMS."""
    found = [] if report.detections is None else _detections(report.detections)
    if report.reach is not None:
        found.append(_reach_finding(report.reach))
    if (chains := report.chains) is None:
        return found
    if chains.allowed is None:
        text = f"NMS: suppression chains of up to {chains.needed} steps"
        return [*found, Finding(text, "passed")]
    text = f"NMS: {chains.needed} of {chains.allowed} steps needed"
    if chains.fits:
        return [*found, Finding(text, "passed")]
    remedy = f"export with --nms-steps {2 * chains.needed}"
    return [*found, Finding(f"{text}; {remedy}", "inconclusive")]


def _reach_finding(reach: ReachParity) -> Finding:
    text = (
        f"candidates: {reach.needed} of the {reach.allowed} give the same detections as "
        f"{reach.known}"
    )
    if reach.last_score is None:
        return Finding(text, "passed")
    text = (
        f"candidates: {reach.allowed} are too few (the score of the last candidate is "
        f"{reach.last_score:.4f}); {reach.needed} give the same detections as {reach.known}; "
        f"export with --candidates {enough_candidates(reach.needed)}"
    )
    return Finding(text, "inconclusive")


def _detections(parity: DetectionParity) -> list[Finding]:
    if parity.broken:
        return [Finding(f"detections: {parity.broken}", "failed")]
    if not parity.total:
        return [Finding(f"detections: {parity.reason}", parity.status)]
    summary = (
        f"detections: {parity.share:.2%} matched at IoU {parity.iou:g}"
        f" ({parity.reference_count} in the reference, {parity.candidate_count} in the candidate, "
        f"{len(parity.missed)} missed, {len(parity.extra)} extra, "
        f"{len(parity.set_aside)} set aside); "
        f"boxes within {parity.box_difference:.2g} px, scores within "
        f"{parity.score_difference:.1e}: {parity.reason}"
    )
    found = [Finding(summary, parity.status)]
    for title, strays in (
        ("missed", parity.missed),
        ("extra", parity.extra),
        ("set aside", parity.set_aside),
    ):
        for each in strays[:_LISTED]:
            box = ", ".join(f"{side:.1f}" for side in each.box)
            said = f"{title}: image {each.image}, class {each.label}, score {each.score:.6f}"
            owner = "only in the reference" if each.side == "reference" else "only in the candidate"
            excuse = f", {owner}: {each.excuse}" if each.excuse else ""
            found.append(Finding(f"{said}, box ({box}){excuse}", "detail"))
        if len(strays) > _LISTED:
            found.append(Finding(f"{title}: {len(strays) - _LISTED} more", "detail"))
    return found
