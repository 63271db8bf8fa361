"""A comparison as one self-contained HTML file: it needs no network and no script."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from effdet_deploy._version import __version__
from effdet_deploy.parity.breakdown import pair_differences
from effdet_deploy.reports.columns import Table, doubts
from effdet_deploy.reports.comparison import (
    causes,
    counts,
    file_name,
    spreads,
    summary,
    worst_layers,
)
from effdet_deploy.reports.comparison_charts import depth_chart, log_histogram, score_scatter
from effdet_deploy.reports.gallery import DRAWN, gallery
from effdet_deploy.reports.verification import OUTPUTS, detection_findings, head_findings

if TYPE_CHECKING:
    from effdet_deploy.diagnosis.comparing_files import Examined, SideBySide

_CLASSES = 20
"""How many classes the page lists per candidate, those that differ most."""


def to_html(result: SideBySide) -> str:
    """Return the page: a summary, then every candidate with charts, tables and pictures."""
    environment = Environment(
        loader=PackageLoader("effdet_deploy.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    uris: dict[int, str] = {}
    return environment.get_template("comparison.html").render(
        reference=Path(result.reference).name,
        pictures=len(result.pictures.names),
        summary=summary(result),
        doubts=doubts(result.doubts),
        candidates=[_candidate(each, result, uris) for each in result.examined],
        drawn=DRAWN,
        version=__version__,
    )


def _candidate(each: Examined, result: SideBySide, uris: dict[int, str]) -> dict[str, Any]:
    images, report, layers = each.comparison.images, each.comparison.report, each.layers
    pairs = [
        (image.reference.scores[rows], image.candidate.scores[partners])
        for image in images
        for rows, partners in [image.matching.pairs.T]
    ]
    missed = [image.reference.scores[image.matching.missed] for image in images]
    extra = [image.candidate.scores[image.matching.extra] for image in images]
    boxes, scores, _ = pair_differences(images)
    verdict, *heads = head_findings(report, "comparison")
    return {
        "name": file_name(each),
        "status": report.status,
        "findings": [verdict, *causes(each), *heads, *detection_findings(report), *spreads(each)],
        "outputs": Table(OUTPUTS, [report.outputs], "raw outputs") if report.outputs else None,
        "depth": depth_chart(layers) if layers else None,
        "layers": worst_layers(layers) if layers else None,
        "scatter": score_scatter(
            np.concatenate([np.stack(each, axis=1) for each in pairs]),
            np.concatenate(missed),
            np.concatenate(extra),
        ),
        "histograms": [
            log_histogram(scores, "difference of scores"),
            log_histogram(boxes, "difference of boxes, px"),
        ],
        "counts": counts(each, _CLASSES),
        "gallery": gallery(each, result.pictures, uris),
    }
