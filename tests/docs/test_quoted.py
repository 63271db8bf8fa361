"""Messages and output that the pages quote are those that the programs print."""

from __future__ import annotations

import re

import pytest

from tests.cli.test_named_in_messages import texts
from tests.docs.test_pages import FENCED, NAMES

PRINTED = "\n".join(text for _, text in texts())
NAMED = (
    r"TensorRT|ONNX Runtime|NVIDIA L4|SIGKILL|digits\.onnx|tf_efficientdet_d0|passed|fp32|"
    "class_logits|box_regression"
)
VARIES = re.compile(rf"[\d.]+(?:e-\d+)?%?|…|\[✓\]|'x\.onnx'|\b(?:{NAMED})\b")
"""The parts of a quoted message that change from run to run."""


def messages() -> list[str]:
    """Return the messages that docs/tensorrt.md quotes."""
    _, table = NAMES["docs/tensorrt.md"].read_text(encoding="utf-8").split("## What can go wrong")
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)


def lines_shown() -> list[str]:
    """Return the lines of output that docs/index.md shows."""
    blocks = FENCED.findall(NAMES["docs/index.md"].read_text(encoding="utf-8"))
    return [line for language, block in blocks if language == "text" for line in block.splitlines()]


@pytest.mark.parametrize("quoted", [*messages(), *lines_shown()])
def test_a_quoted_message_is_printed(quoted):
    said = [each.strip(" ()[];:',") for each in VARIES.split(quoted)]
    phrases = [each for each in said if len(each.split()) > 1]
    assert [each for each in phrases if each not in PRINTED] == []


def test_messages_are_quoted():
    """Without quoted messages, the test above would compare nothing."""
    assert len(messages()) > 5
    assert len(lines_shown()) > 3
