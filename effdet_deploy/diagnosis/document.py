"""A comparison as JSON."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from effdet_deploy.diagnosis.layers import layers_dict
from effdet_deploy.parity.breakdown import breakdown_dict
from effdet_deploy.parity.report import without_non_finite

if TYPE_CHECKING:
    from effdet_deploy.diagnosis.side_by_side import Examined, SideBySide


def to_dict(result: SideBySide) -> dict[str, Any]:
    """Return the whole comparison for JSON; a number that is not finite is None."""
    document: dict[str, Any] = without_non_finite(
        {
            "reference": result.reference,
            "passed": result.passed,
            "pictures": list(result.pictures.names),
            "candidates": [_candidate(each, result.pictures.names) for each in result.examined],
        }
    )
    return document


def _candidate(each: Examined, pictures: tuple[str, ...]) -> dict[str, Any]:
    comparison = each.comparison
    return {
        "candidate": comparison.name,
        "status": comparison.report.status,
        "causes": list(each.causes),
        "report": comparison.report.to_dict(),
        "breakdown": breakdown_dict(each.breakdown, comparison.candidate),
        "accuracy": dataclasses.asdict(each.scores) if each.scores else None,
        "layers": layers_dict(each.layers) if each.layers else None,
        "images": [
            {
                "picture": pictures[image.index],
                "reference": len(image.reference),
                "candidate": len(image.candidate),
                "matched": len(image.matching.pairs),
                "largest_box_difference": image.matching.box_difference,
                "largest_score_difference": image.matching.score_difference,
            }
            for image in comparison.images
        ],
    }
