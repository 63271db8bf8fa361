"""What every refused export must look like from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effdet_deploy.cli import export_main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

OLD = b"the artifact that was there"


def assert_export_is_refused(
    directory: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    *,
    code: int,
    words: list[str],
) -> None:
    """Export over an existing file; require exit code ``code``, a message, and no changed file.

    All ``words`` must be in the message. ``directory`` must stay without new files.
    """
    output = directory / "old.onnx"
    output.write_bytes(OLD)
    before = sorted(directory.rglob("*"))
    capsys.readouterr()
    assert export_main([str(output), *arguments]) == code
    said = " ".join(capsys.readouterr().err.split())
    assert "error: " in said
    assert "Traceback" not in said
    for word in words:
        assert word in said, said
    assert output.read_bytes() == OLD
    assert sorted(directory.rglob("*")) == before
