"""What preflight found: one dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One reason why a model does not fit a target.

    Attributes:
        rule: the rule that found it, such as ``"topk"``.
        node: the name of the node; the tensor's where it has none; ``""`` for the whole model.
        cause: one sentence: what is wrong, with the value expected and the value got.
        remedy: one sentence: what to do about it.
        severity: ``"error"``: the target refuses the model. ``"warning"``: it takes the model, but
            computes something else than the file says.
    """

    rule: str
    node: str
    cause: str
    remedy: str
    severity: Severity = "error"

    def __str__(self) -> str:
        place = f"{self.node}: " if self.node else ""
        return f"{place}{self.cause} {self.remedy}"
