"""Does an artifact do what its reference does: heads, detections, and what cannot be told."""

from effdet_deploy.parity.comparison import compare
from effdet_deploy.parity.verdict import ParityReport

__all__ = ["ParityReport", "compare"]
