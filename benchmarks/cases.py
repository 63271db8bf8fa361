"""What a table of the benchmark is about: a variant, its size, batch, threads, and its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import effdet
import torch
from kept import finished

from effdet_deploy.benchmark.samples import SEED
from effdet_deploy.pytorch.network import create_model, resolve_name
from effdet_deploy.pytorch.network.conditioning import randomise
from effdet_deploy.synthetic import structured_pictures

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from effdet_deploy.pytorch.network import EfficientDet


@dataclass(frozen=True)
class Case:
    """What is timed: one variant at one size, batch and thread count; files go to ``directory``."""

    variant: str
    image_size: int | None
    batch: int
    threads: int
    directory: Path
    verify: bool = True

    @property
    def stem(self) -> str:
        """Begins the names of the case's files; exports serve every batch and thread count."""
        return f"{self.variant}_{self.image_size or 'own'}"

    @property
    def weights(self) -> Path:
        """The checkpoint of the case, in the form that effdet reads as well."""
        return self.directory / f"{self.stem}.pth"


@dataclass(frozen=True)
class Weights:
    """Two networks with the same weights, and the input our graphs take.

    ``compiled`` holds what torch.compile took minutes to make, for the next table.
    """

    ours: EfficientDet
    theirs: nn.Module
    pictures: NDArray[np.uint8]
    compiled: dict[str, nn.Module] = field(default_factory=dict)


def load_weights(case: Case) -> Weights:
    """Make seeded, conditioned weights and give them to both implementations, strictly."""
    ours = create_model(case.variant, image_size=case.image_size)
    stored = case.weights
    if stored.exists():
        ours.load_state_dict(torch.load(stored, weights_only=True))
    else:
        randomise(ours)
        with finished(stored) as partly:
            torch.save(ours.state_dict(), partly)
    size = ours.config.image_size
    theirs = effdet.create_model(
        resolve_name(case.variant), pretrained_backbone=False, image_size=size
    ).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return Weights(ours.eval(), theirs, structured_pictures(case.batch, *size, SEED))
