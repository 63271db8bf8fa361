from __future__ import annotations

import pytest

from tests.pytorch.network.equality import assert_equal_to_effdet_and_scriptable, configurations


@pytest.mark.parametrize("name", configurations(of_tensorflow=True))
def test_outputs_equal_effdets_at_two_sizes_and_when_scripted(name):
    assert_equal_to_effdet_and_scriptable(name)
