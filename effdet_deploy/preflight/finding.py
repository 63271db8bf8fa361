"""Finding: a problem of a model, which the check for TensorRT (the preflight) has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One reason why a model does not fit a target.

    Attributes:
        rule: the rule that found the problem, such as ``"topk"``.
        node: the name of the node, or of its tensor if the node has no name; ``""`` for the whole
            model.
        cause: one sentence that says what is wrong, with the expected and the actual value.
        remedy: one sentence that says what to do about it.
        severity: ``"error"`` if the target refuses the model; ``"warning"`` if it accepts the model
            but computes something else than the file says.
    """

    rule: str
    node: str
    cause: str
    remedy: str
    severity: Severity = "error"

    def __str__(self) -> str:
        place = f"{self.node}: " if self.node else ""
        return f"{place}{self.cause} {self.remedy}"
