from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effdet_deploy.pytorch.network import create_model

if TYPE_CHECKING:
    from torch import Tensor

NUM_CLASSES = 3


@pytest.fixture(scope="session")
def d0_weights() -> dict[str, Tensor]:
    """The state dict of a newly initialized D0 with three classes; tests must not change it."""
    return dict(create_model("d0", num_classes=NUM_CLASSES, image_size=128).state_dict())
