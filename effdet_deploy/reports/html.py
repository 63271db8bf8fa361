"""A comparison as one HTML file that needs nothing else: no network, no script."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from effdet_deploy._version import __version__
from effdet_deploy.parity.breakdown import pair_differences
from effdet_deploy.reports.comparison_charts import depth_chart, log_histogram, score_scatter
from effdet_deploy.reports.comparison_table import (
    class_name,
    largest_differences,
    map_text,
    most_disagreed,
)
from effdet_deploy.reports.gallery import DRAWN, SHOWN, gallery
from effdet_deploy.reports.html_style import STYLE
from effdet_deploy.reports.verification import cosine_text, decibels

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from effdet_deploy.diagnosis.layers import LayerReport
    from effdet_deploy.diagnosis.side_by_side import Examined, SideBySide
    from effdet_deploy.parity.breakdown import Count
    from effdet_deploy.parity.report import OutputParity

_CLASSES = 20
_COUNT_HEADS = ("reference", "here", "matched", "missed", "extra", "set aside")
_KEY = (
    '<p class="key"><span><i class="pair"></i>both</span><span><i class="missed"></i>reference '
    'only</span><span><i class="extra"></i>candidate only</span></p>'
)


def to_html(result: SideBySide) -> str:
    """Return the page: summary, then each candidate with charts, tables and pictures."""
    uris: dict[int, str] = {}
    sections = "".join(
        _section(number, each, result, uris) for number, each in enumerate(result.examined)
    )
    title = f"Comparison with {escape(Path(result.reference).name)}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>"
        f"<header><h1>{title}</h1><p>{len(result.pictures.names)} pictures · "
        f"{len(result.examined)} candidate{'s' * (len(result.examined) != 1)} · "
        f"effdet-deploy {__version__}</p></header>"
        f"{_summary(result)}{sections}</main></body></html>\n"
    )


def _summary(result: SideBySide) -> str:
    rows = []
    for number, each in enumerate(result.examined):
        detections = each.comparison.report.detections
        share = detections.share if detections else math.nan
        rows.append(
            [
                f'<a href="#candidate-{number}">{_file_name(each)}</a>',
                _badge(each),
                escape(each.comparison.report.precision),
                "·" if math.isnan(share) else f"{share:.2%}",
                str(len(detections.missed)) if detections else "·",
                str(len(detections.extra)) if detections else "·",
                *largest_differences(each),
                escape(map_text(each)) or "·",
            ]
        )
    heads = ("candidate", "", "precision", "matched", "missed", "extra", "boxes, px", "scores")
    return _card("", _table((*heads, "mAP (difference)"), rows))


def _file_name(each: Examined) -> str:
    return escape(Path(each.comparison.name).name)


def _badge(each: Examined) -> str:
    status = each.comparison.report.status
    return f'<span class="badge {status}">{status}</span>'


def _card(title: str, body: str, kind: str = "") -> str:
    heading = f"<h3>{escape(title)}</h3>" if title else ""
    return f'<div class="card {kind}">{heading}{body}</div>'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], first: int = -1) -> str:
    """Return a table of cells that are HTML; the row ``first`` is marked."""
    head = "".join(f"<th>{each}</th>" for each in heads)
    body = "".join(
        f"<tr{' class=first' if number == first else ''}>{''.join(map(_cell, row))}</tr>"
        for number, row in enumerate(rows)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str) -> str:
    return f"<td{' class=zero' if text in ('0', '·') else ''}>{text}</td>"


def _section(number: int, each: Examined, result: SideBySide, uris: dict[int, str]) -> str:
    heading = f'<h2 id="candidate-{number}">{_file_name(each)} {_badge(each)}</h2>'
    parts = [heading, _causes(each), _outputs(each.comparison.report.outputs)]
    if each.layers is not None:
        parts += [
            _card("Relative error along the depth of the network", depth_chart(each.layers)),
            _worst_layers(each.layers),
        ]
    parts += [_distributions(each), _counts(each), _pictures(each, result, uris)]
    return f"<section>{''.join(parts)}</section>"


def _causes(each: Examined) -> str:
    detections = each.comparison.report.detections
    said = list(each.causes)
    if detections is not None and not each.passed:
        share = "" if math.isnan(detections.share) else f"{detections.share:.2%} matched, "
        said.insert(0, f"Detections {detections.status}: {share}{detections.reason}.")
    if not said:
        return ""
    listed = "".join(f"<li>{escape(cause)}</li>" for cause in said)
    return _card("What was found", f"<ul>{listed}</ul>", "causes")


def _outputs(outputs: Sequence[OutputParity]) -> str:
    if not outputs:
        return ""
    rows = [
        [
            f"<code>{escape(each.name)}</code>",
            f"{each.errors.largest:.2e}",
            f"{each.errors.mean:.2e}",
            cosine_text(each.errors.cosine),
            decibels(each.errors.snr_db),
            f"{each.errors.passing_tolerance:.1e}",
            "not judged" if each.allowed is None else f"{each.allowed:.1e}",
        ]
        for each in outputs
    ]
    heads = ("", "largest error", "mean", "cosine", "SNR dB", "least tolerance", "allowed")
    return _card("Raw outputs", _table(heads, rows))


def _worst_layers(layers: LayerReport) -> str:
    names = [each.name for each in layers.worst]
    rows = [
        [
            f"<code>{escape(each.name)}</code>",
            decibels(each.snr_db),
            cosine_text(each.errors.cosine),
            f"{each.errors.largest:.2e}",
        ]
        for each in layers.worst
    ]
    first = names.index(layers.first.name) if layers.first and layers.first.name in names else -1
    heads = ("", "SNR dB", "cosine", "largest error")
    return _card(f"Worst of {len(layers.layers)} layers", _table(heads, rows, first))


def _distributions(each: Examined) -> str:
    images = each.comparison.images
    pairs = np.concatenate(
        [
            np.stack(
                [
                    image.reference.scores[image.matching.pairs[:, 0]],
                    image.candidate.scores[image.matching.pairs[:, 1]],
                ],
                axis=1,
            )
            for image in images
        ]
    )
    missed = np.concatenate([image.reference.scores[image.matching.missed] for image in images])
    extra = np.concatenate([image.candidate.scores[image.matching.extra] for image in images])
    scatter = _card("Scores", _KEY + score_scatter(pairs, missed, extra))
    boxes, scores, _ = pair_differences(each.comparison.images)
    histograms = log_histogram(scores, "difference of scores")
    histograms += log_histogram(boxes, "difference of boxes, px")
    return f'<div class="grid2">{scatter}{_card("Differences of pairs", histograms)}</div>'


def _counts(each: Examined) -> str:
    sizes = [[escape(name), *_count_cells(count)] for name, count in each.breakdown.sizes.items()]
    ordered = most_disagreed(each.breakdown)
    classes = [
        [escape(class_name(each.comparison.candidate, label)), *_count_cells(count)]
        for label, count in ordered[:_CLASSES]
    ]
    more = len(ordered) - _CLASSES
    note = f'<p class="note">and {more} classes more</p>' if more > 0 else ""
    heads = ("", *_COUNT_HEADS)
    return _card("By size", _table(heads, sizes)) + _card("By class", _table(heads, classes) + note)


def _count_cells(count: Count) -> list[str]:
    cells = (count.reference, count.candidate, count.matched, count.missed, count.extra)
    return [str(cell) for cell in (*cells, count.set_aside)]


def _pictures(each: Examined, result: SideBySide, uris: dict[int, str]) -> str:
    shown = min(SHOWN, len(each.comparison.images))
    note = (
        f'<p class="note">The {shown} of {len(each.comparison.images)} pictures with most '
        f"disagreement, each with the {DRAWN} best boxes of each kind; rest the pointer on a box "
        "for its class and score.</p>"
    )
    figures = gallery(each, result.pictures, uris)
    return f'<h2>Pictures, worst first</h2>{note}{_KEY}<div class="gallery">{figures}</div>'
