"""What the tests of engine builds share."""

from __future__ import annotations

from effdet_deploy.exporters.tensorrt.options import BuildOptions

RTX = BuildOptions(backend="tensorrt-rtx")
OLD = b"an engine of yesterday"
PATIENCE_S = 250


def assert_untouched(engine, *others):
    """The old engine is whole, and nothing else was left beside it."""
    assert engine.read_bytes() == OLD
    names = {each.name for each in engine.parent.iterdir()}
    assert names == {engine.name, *(each.name for each in others)}
