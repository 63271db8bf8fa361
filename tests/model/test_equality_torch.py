from __future__ import annotations

import pytest

from effdet_deploy.model import list_models
from tests.model.equality import assert_equal_to_effdet_and_scriptable


@pytest.mark.parametrize(
    "name",
    [name for name in list_models() if not name.startswith("tf_")],
)
def test_outputs_equal_effdet_at_two_sizes_and_scripted(name):
    assert_equal_to_effdet_and_scriptable(name)
