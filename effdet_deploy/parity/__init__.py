"""Does an artifact do what its reference does? Comparison of raw heads and detections."""

from effdet_deploy.parity.comparison import compare
from effdet_deploy.parity.verdict import ParityReport

__all__ = ["ParityReport", "compare"]
