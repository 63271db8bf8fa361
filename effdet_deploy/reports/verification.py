"""A ParityReport for the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from effdet_deploy.parity.matching import Stray
    from effdet_deploy.parity.report import (
        ChainParity,
        DetectionParity,
        OutputParity,
        ParityReport,
        Status,
    )

MARKS: dict[Status, tuple[str, str]] = {
    "passed": ("[✓]", "green"),
    "failed": ("[✗]", "bold red"),
    "inconclusive": ("[?]", "yellow"),
}
"""The mark of a verdict and its style."""
_LISTED = 5
"""Strays of a kind that are written out; the JSON form has them all."""


def render(report: ParityReport, title: str = "verification") -> RenderableType:
    """Return ``report`` as lines with [✓], [✗] or [?], and a table of the raw outputs.

    ``title`` names what was done, in the first line.
    """
    parts: list[RenderableType] = [_headline(report, title)]
    parts += [_output_line(output) for output in report.outputs]
    if report.outputs:
        parts.append(_output_table(report.outputs))
    if report.detections is not None:
        parts += _detection_lines(report.detections)
    if report.chains is not None:
        parts.append(_chain_line(report.chains))
    return Group(*parts)


def _marked(status: Status, text: str) -> Text:
    mark, style = MARKS[status]
    return Text.assemble((mark, style), " ", text)


def _headline(report: ParityReport, title: str) -> Text:
    sizes = " and ".join(map(str, report.batch_sizes)) or "-"
    where = f"{report.images} images, batch {sizes}"
    return _marked(report.status, f"{title} {report.status} ({report.precision}; {where})")


def _output_line(output: OutputParity) -> Text:
    errors = output.errors
    if errors.mismatch:
        return _marked("failed", f"{output.name}: {errors.mismatch}")
    if errors.non_finite_reference or errors.non_finite_candidate:
        return _marked(
            "failed",
            f"{output.name}: not finite in {errors.non_finite_reference} elements of the "
            f"reference and {errors.non_finite_candidate} here",
        )
    text = f"{output.name}: largest error {errors.largest:.2e}"
    if output.allowed is None:
        return _marked(output.status, f"{text} (measured, not judged)")
    text += f", allowed {output.allowed:.1e}"
    if output.own_error is not None:
        text += f" (the network's own float32 error is {output.own_error:.1e})"
    if output.status == "failed" and len(output.by_batch) > 1:
        parts = ", ".join(f"{error:.2e} at batch {size}" for size, error in output.by_batch)
        text += f"; {parts}"
    return _marked(output.status, text)


def decibels(value: float) -> str:
    """Return a signal-to-noise ratio as text; ``exact`` where there is no error."""
    if value == math.inf:
        return "exact"
    return f"{value:.1f}" if math.isfinite(value) else "-"


def cosine_text(value: float) -> str:
    """Return a cosine as text; ``-`` where nothing could be compared."""
    return f"{value:.7f}" if math.isfinite(value) else "-"


def _output_table(outputs: tuple[OutputParity, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    table.add_column("output")
    for heading in ("largest", "mean", "cosine", "SNR dB", "passes at"):
        table.add_column(heading, justify="right")
    for output in outputs:
        errors = output.errors
        table.add_row(
            output.name,
            f"{errors.largest:.2e}",
            f"{errors.mean:.2e}",
            cosine_text(errors.cosine),
            decibels(errors.snr_db),
            f"{errors.passing_tolerance:.1e}",
        )
    return table


def _detection_lines(parity: DetectionParity) -> list[RenderableType]:
    if parity.broken:
        return [_marked("failed", f"detections: {parity.broken}")]
    lines: list[RenderableType] = [_marked(parity.status, _detection_summary(parity))]
    for title, found in (
        ("missed", parity.missed),
        ("extra", parity.extra),
        ("set aside", parity.set_aside),
    ):
        lines += [_stray_line(title, stray) for stray in found[:_LISTED]]
        if len(found) > _LISTED:
            lines.append(Text(f"      {title}: {len(found) - _LISTED} more", style="dim"))
    return lines


def _detection_summary(parity: DetectionParity) -> str:
    if not parity.total:
        return f"detections: {parity.reason}"
    return (
        f"detections: {parity.share:.2%} matched at IoU {parity.iou:g}"
        f" ({parity.reference_count} in the reference, {parity.candidate_count} here, "
        f"{len(parity.missed)} missed, {len(parity.extra)} extra, "
        f"{len(parity.set_aside)} set aside); "
        f"boxes within {parity.box_difference:.2g} px, scores within "
        f"{parity.score_difference:.1e}: {parity.reason}"
    )


def _stray_line(title: str, stray: Stray) -> Text:
    box = ", ".join(f"{side:.1f}" for side in stray.box)
    owner = " only in the reference" if stray.side == "reference" else " only here"
    text = f"      {title}: image {stray.image}, class {stray.label}, score {stray.score:.6f}"
    text += f", box ({box})"
    return Text(text + (f",{owner}: {stray.excuse}" if stray.excuse else ""), style="dim")


def _chain_line(chains: ChainParity) -> Text:
    if chains.allowed is None:
        return _marked("passed", f"NMS: suppression chains of up to {chains.needed} steps")
    text = f"NMS: {chains.needed} of {chains.allowed} steps needed"
    if chains.fits:
        return _marked("passed", text)
    return _marked("inconclusive", f"{text}; export with --nms-steps {2 * chains.needed}")
