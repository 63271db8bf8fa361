from __future__ import annotations

import pytest

from effdet_deploy.runtimes.tensorrt.library import essence


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "[checkMacros.cpp::getErrorStr::132] Error Code 2: OutOfMemory (Requested size was 9.)",
            "OutOfMemory (Requested size was 9.)",
        ),
        (
            "IBuilder::build: Error Code 4: API Usage Error (No profile. In f at /_src/n.cpp:4)",
            "API Usage Error (No profile.)",
        ),
        ("node 'fpn::conv' (Conv):\n  not supported.", "node 'fpn::conv' (Conv): not supported"),
    ],
)
def test_source_positions_are_left_out(message, said):
    assert essence([message]) == said


def test_several_messages_are_one_line():
    assert essence(["one.", "two"]) == "one; two"
